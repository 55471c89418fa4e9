"""The steps of running episodes, and what the host knows of them without asking a device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xlstm_rl.envs.spaces.leaves import Array
from xlstm_rl.envs.tasks.values import BatchValues, Values

Rows = tuple[Values, Array | None]
"""Some environments: indices and the same on the host, or a mask `[B]` that it does not know."""


class EpisodeClock:
    """Counts the steps of `B` episodes where the environments are, and on the host beside it.

    On arrays the two are one. On tensors the host's count holds as long as only rows that the host
    knows are set back: in tasks whose episodes are equally long, whatever the actions.

    Args:
        values: Of the environments.
        num_envs: Number of environments, `B`.
    """

    def __init__(self, values: BatchValues, num_envs: int) -> None:
        self._values, self._num_envs = values, num_envs
        self.elapsed = values.zeros(num_envs)
        """Steps of each episode so far, `[B]`; always the same object."""
        self._one = isinstance(self.elapsed, np.ndarray)
        self._host: Array = self.elapsed if self._one else np.zeros(num_envs, np.int64)
        self._every = values.array(range(num_envs))

    def count(self) -> None:
        """Count a step of every episode."""
        self.elapsed += 1
        if not self._one:
            self._host += 1

    def set_back(self, rows: Rows) -> None:
        """Set some episodes back to zero steps."""
        if self._one:
            self.elapsed[rows[0]] = 0
            return
        self._values.put(self.elapsed, rows[0], 0)
        if rows[1] is not None:
            self._host[rows[1]] = 0

    def over(self, done: Values, length: int | None, limit: int) -> Rows | None:
        """Return whose episodes are over, without waiting for a device; None: nobody's.

        Args:
            done: `[B]`, where the environments are.
            length: Steps after which every episode terminates; None: the actions decide.
            limit: Steps after which every episode is cut.
        """
        if self._one:
            return self.known(done)
        return (done, None) if length is None else self.known(self._host >= min(length, limit))

    def where(self, condition: Callable[[Values], Values]) -> tuple[Values, Values | None]:
        """Return where a condition on the elapsed steps holds, `[B]`, and the indices there.

        The indices are None where it holds nowhere.
        """
        flags = condition(self.elapsed)
        rows = self.known(flags if self._one else condition(self._host))
        return flags, None if rows is None else rows[0]

    def known(self, flags: Array) -> Rows | None:
        """Return the environments whose flags `[B]`, on the host, are set; None: nobody's are."""
        if not flags.any():
            return None
        rows = np.flatnonzero(flags)
        if self._one:
            return rows, rows
        # All, unless some were reset alone: their indices are sent, for which the host may wait.
        return (self._every if len(rows) == self._num_envs else self._values.array(rows)), rows
