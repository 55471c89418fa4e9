"""What every actor does, wherever it is: it plays with the newest weights that there are."""

import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

from xlstm_rl.collection.rollout import Rollout
from xlstm_rl.distributed.actors.memory import Layout
from xlstm_rl.distributed.actors.task import ActorTask

Weights: TypeAlias = tuple[float, Mapping[str, Tensor]]
"""The number of updates before them, and the tensors of the policy."""


class Player:
    """The environments and the policy of an actor.

    Args:
        task: what it does.
        newest: returns weights that are newer than those of the last call; None: there are none.
    """

    def __init__(self, task: ActorTask, newest: Callable[[], Weights | None]) -> None:
        self._collector = task.make_collector()
        self._newest = newest
        self._version = -1.0
        self._versions: list[float] = []
        if task.max_staleness:
            self._collector.on_step = self._refresh

    @property
    def layout(self) -> Layout:
        """Return that of the weights."""
        return Layout.of(self._collector.policy.state_dict())

    def _refresh(self) -> None:
        weights = self._newest()
        if weights is not None:
            self._version, tensors = weights
            self._collector.policy.load_state_dict(tensors)
        self._versions.append(self._version)

    def play(self) -> tuple[Rollout, tuple[float, float], float]:
        """Return a rollout, the versions of its first weights and of all on average, and seconds.

        Weights that come meanwhile are taken over, but where actors and learner take turns.
        """
        self._versions.clear()
        self._refresh()
        began = time.perf_counter()
        rollout = self._collector.collect()
        seconds = time.perf_counter() - began
        return rollout, (self._versions[0], sum(self._versions) / len(self._versions)), seconds
