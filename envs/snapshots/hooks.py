"""Handing over the state of one environment through the pipe of its process."""

from __future__ import annotations

from typing import Any

from xlstm_rl.envs.snapshots.decode import restore_snapshot
from xlstm_rl.envs.snapshots.encode import Snapshot, take_snapshot
from xlstm_rl.envs.snapshots.graph import SnapshotError


class HandsOverState:
    """Methods that another process calls; an error is an answer: raised, it would end this one."""

    def stepped(self) -> Any:
        """Return what is stepped: it has `is_over`, whether its episode has ended.

        And `resets_first`, whether its next step only resets.
        """
        return self

    def hand_over(self) -> Snapshot | str:
        """Return the environment's state, or why there is none."""
        try:
            return take_snapshot(self)
        except SnapshotError as error:
            return str(error)

    def take_over(self, snapshot: Any, trust: bool, resets_first: bool) -> str | None:
        """Go on from a state, or return why that is impossible.

        Args:
            snapshot: of `hand_over`.
            trust: read what is pickled in it.
            resets_first: whether the step after an episode's last one only resets.
        """
        try:
            restore_snapshot(self, snapshot, trust)
        except SnapshotError as error:
            return str(error)
        stepped = self.stepped()
        stepped.resets_first = resets_first and stepped.is_over
        return None
