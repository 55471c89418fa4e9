"""TMaze: see a sign at one end of a corridor, turn to its side at the other end.

Source of the task: Bakker, Reinforcement Learning with Long Short-Term Memory, 2001. The two
variants and the price of falling behind are those of Ni et al., When Do Transformers Shine in RL?,
2023 (arXiv:2307.03864).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from typing_extensions import Unpack

from xlstm_rl.envs.arguments import check_whole
from xlstm_rl.envs.tasks.drawing import AGENT, BACKGROUND, GREEN, RED, Image, dim, grid
from xlstm_rl.envs.tasks.task import SingleTask, TaskOptions, TaskVectorEnv
from xlstm_rl.envs.tasks.values import Values

_VIEW = 32
"""Cells of the corridor in a picture."""


class TMazeVectorEnv(TaskVectorEnv):
    """Walk `length` steps along a corridor and turn to the side that a sign at its start named.

    Cells 0 (start) to `length` (junction). The sign stands at the start (passive), or, with
    `active`, in a further cell -1, one step the other way, so that the agent must go and look.
    Observation `[3]`: the sign (1: up, -1: down; 0 where it does not stand), whether the agent is
    at the start, whether it is at the junction. Actions: 0 right, 1 up, 2 left, 3 down. Up and
    down at the junction end the episode, elsewhere they are steps on the spot, as is every step
    against a wall.

    The right side is worth 1, the wrong one 0. Every other step that leaves the agent behind the
    schedule costs 1 / `length`: after step t it is to be in cell t or further, with `active` in
    t - 2. The episode also ends with step `length + 1`, with `active` `length + 3`, the first in
    which no time is left.

    The optimal policy returns 1. The best one without memory returns 1/2: it never sees the sign
    and the junction at once, so that it takes the right side half the time, and to go straight on
    costs nothing.

    Args:
        num_envs: Number of environments, `B`.
        length: Steps from the start to the junction; learning was not tried beyond 10,000.
        active: Whether the sign is away from the way.
        options: Those of every task: `TaskOptions`.

    Raises:
        ValueError: `length` is not an integer >= 1.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        length: int = 10,
        active: bool = False,
        **options: Unpack[TaskOptions],
    ) -> None:
        (length,) = check_whole("TMaze", length=length)
        low, high = np.array([-1, 0, 0], np.float32), np.ones(3, np.float32)
        super().__init__(num_envs, spaces.Box(low, high), spaces.Discrete(4), **options)
        self.length = length
        self.active = active
        self.position = self.zeros(self.num_envs)
        """The cell of each agent, `[B]`."""
        self.side = self.zeros(self.num_envs)
        """The right side, `[B]`: 1 up, -1 down."""
        self._first_cell = -1 if active else 0
        self._spare_steps = 2 if active else 0

    @property
    def optimal_return(self) -> float:
        """The mean return of the best policy."""
        return 1.0

    @property
    def memoryless_return(self) -> float:
        """The mean return of the best policy that sees the present observation alone."""
        return 0.5

    def _draw_ahead(self) -> None:
        self.draw_signs(self.num_envs)

    def _begin(self, rows: Values, options: dict[str, Any]) -> None:
        self.put(self.position, rows, 0)
        self.put(self.side, rows, self.signs(rows))

    def _advance(self, actions: Values) -> tuple[Values, Values]:
        vertical = (actions & 1) == 1
        turned = vertical & (self.position == self.length)
        right = turned & (2 - actions == self.side)
        cell = self.position + (1 - actions) * ~vertical
        self.position = cell.clip(self._first_cell, self.length)
        late = ~turned & (self.position < self.elapsed - self._spare_steps)
        rewards = 1.0 * right - late / self.length
        return rewards, turned | (self.elapsed > self.length + self._spare_steps)

    def _observe(self) -> Values:
        observation = self.zeros(self.num_envs, 3, dtype="float32")
        observation[:, 0] = self.side * (self.position == self._first_cell)
        observation[:, 1] = self.position == 0
        observation[:, 2] = self.position == self.length
        return observation

    @property
    def longest_episode(self) -> int:
        """The most steps that an episode can have."""
        return self.length + self._spare_steps + 1

    def _cells(self, row: int) -> Image:
        """The corridor around the agent, with the sign and the two arms of the junction."""
        position, side = int(self.position[row]), int(self.side[row])
        first = max(self._first_cell, min(position, self.length - _VIEW // 2) - _VIEW // 2)
        last = min(self.length, first + _VIEW)
        cells = grid(3, last - first + 1)
        cells[[0, 2]] = BACKGROUND
        if last == self.length:
            cells[1 - side, -1], cells[1 + side, -1] = dim(GREEN), dim(RED)
        if first == self._first_cell:
            sign = GREEN if side > 0 else RED
            cells[0, 0] = sign if position == first else dim(sign)
        cells[1, position - first] = AGENT
        return cells


class TMaze(SingleTask):
    """One TMaze, with the arguments `length` and `active`: see `TMazeVectorEnv`."""

    vector_form = TMazeVectorEnv
