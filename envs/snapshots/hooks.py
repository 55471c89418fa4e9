"""Handing over the state of one environment through the pipe of its process."""

from __future__ import annotations

from typing import Any

from xlstm_rl.envs.snapshots.decode import restore_snapshot
from xlstm_rl.envs.snapshots.encode import Snapshot, take_snapshot
from xlstm_rl.envs.snapshots.graph import SnapshotError


class HandsOverState:
    """Methods that another process calls; errors are answers, since a raise would end the process.

    A class that uses it has `is_over`, whether its episode has ended, and `resets_first`, whether
    its next step only resets.
    """

    is_over: bool
    resets_first: bool

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
        self.resets_first = resets_first and self.is_over
        return None
