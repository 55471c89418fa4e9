"""AssociativeRecall: see pairs of a key and a value, then name the values of the keys."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from typing_extensions import Unpack

from xlstm_rl.envs.arguments import check_whole
from xlstm_rl.envs.tasks.drawing import AGENT, GREEN, Image, dim, grid
from xlstm_rl.envs.tasks.task import SingleTask, TaskOptions, TaskVectorEnv
from xlstm_rl.envs.tasks.values import Values


class AssociativeRecallVectorEnv(TaskVectorEnv):
    """Show `pairs` pairs of a key and a value, one a step, then ask for the value of each key.

    Observation `[pairs + values]`: the key and behind it the value, both one-hot; a question shows
    the key and no value, the last observation neither. The keys come in a random order, each with
    a value drawn anew in every episode, and are asked for in another random order. Action: the
    value; while the pairs are shown it does not matter. Each answer brings 1 / `pairs` if it is
    right and the same less if it is wrong; the last one ends the episode of `2 pairs` steps.

    The optimal policy returns 1 in every episode. The best one without memory returns
    2 / `values` - 1, as does a random one: in a question each value is equally probable.

    Args:
        num_envs: Number of environments, `B`.
        pairs: Number of pairs and of keys.
        values: Number of different values.
        options: Those of every task: `TaskOptions`.

    Raises:
        ValueError: `pairs` is not an integer >= 1, or `values` not one >= 2.
    """

    def __init__(
        self, num_envs: int = 1, *, pairs: int = 4, values: int = 4, **options: Unpack[TaskOptions]
    ) -> None:
        (pairs,) = check_whole("AssociativeRecall", pairs=pairs)
        (values,) = check_whole("AssociativeRecall", minimum=2, values=values)
        super().__init__(
            num_envs,
            spaces.Box(0.0, 1.0, (pairs + values,), np.float32),
            spaces.Discrete(values),
            **options,
        )
        self.pairs = pairs
        self.values = values
        self.episode_steps = 2 * pairs
        self.keys = self.zeros(self.num_envs, 2 * pairs + 1)
        """The keys in sight at times 0 to `2 pairs`, `[B, 2 pairs + 1]`."""
        self.value_of = self.zeros(self.num_envs, pairs)
        """The value of each key, `[B, pairs]`."""

    @property
    def optimal_return(self) -> float:
        """The mean return of the best policy."""
        return 1.0

    @property
    def memoryless_return(self) -> float:
        """The mean return of the best policy that sees the present observation alone."""
        return 2.0 / self.values - 1.0

    def _begin(self, rows: Values, options: dict[str, Any]) -> None:
        count, pairs = len(rows), self.pairs
        self.keys[rows, :pairs] = self.draw_orders(count, pairs)
        self.keys[rows, pairs:-1] = self.draw_orders(count, pairs)
        self.value_of[rows] = self.draw_integers(self.values, count, pairs)

    def _advance(self, actions: Values) -> tuple[Values, Values]:
        asked = self.elapsed > self.pairs
        _, value = self._shown(self.elapsed - 1)
        right = actions == value
        return (2.0 * right - 1.0) * asked / self.pairs, self.elapsed >= 2 * self.pairs

    def _observe(self) -> Values:
        key, value = self._shown(self.elapsed)
        observation = self.zeros(self.num_envs, self.pairs + self.values, dtype="float32")
        observation[self.every, key] = 1.0 * (self.elapsed < 2 * self.pairs)
        observation[self.every, self.pairs + value] = 1.0 * (self.elapsed < self.pairs)
        return observation

    def _shown(self, time: Values) -> tuple[Values, Values]:
        """The key at `time [B]` and its value, `[B]` each."""
        key = self.keys[self.every, time]
        return key, self.value_of[self.every, key]

    @property
    def longest_episode(self) -> int:
        """The most steps that an episode can have."""
        return 2 * self.pairs

    def _cells(self, row: int) -> Image:
        """A row for each key: whether it is in sight, then its value among all values."""
        now = int(self.elapsed[row])
        cells = grid(self.pairs, 1 + self.values)
        for key, value in enumerate(self.value_of[row].tolist()):
            cells[key, 1 + value] = dim(GREEN)
        if now < 2 * self.pairs:
            key = int(self.keys[row, now])
            cells[key, 0] = AGENT
            if now < self.pairs:
                cells[key, 1 + int(self.value_of[row, key])] = GREEN
        return cells


class AssociativeRecall(SingleTask):
    """One AssociativeRecall, with `pairs` and `values`: see `AssociativeRecallVectorEnv`."""

    vector_form = AssociativeRecallVectorEnv
