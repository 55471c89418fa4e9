"""NavigateAndReturn: go to a goal in sight, then find back to it from elsewhere, by memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from typing_extensions import Unpack

from xlstm_rl.envs.arguments import check_whole
from xlstm_rl.envs.tasks.drawing import AGENT, GREEN, Image, dim, grid
from xlstm_rl.envs.tasks.task import SingleTask, TaskOptions, TaskVectorEnv
from xlstm_rl.envs.tasks.values import Values


class NavigateAndReturnVectorEnv(TaskVectorEnv):
    """Go to a goal on a grid while it is in sight; then, moved elsewhere, return to it unseen.

    The grid has `size` x `size` cells, the goal is one of them. The episode has `returns + 1` legs
    of `2 (size - 1)` steps, enough for the longest way. Each begins in a random cell, to which the
    agent is moved without its doing. Whoever stands on the goal when the leg is over gets
    1 / (`returns` + 1). The goal is in sight during the first leg only.

    Observation `[5]`: the cell's two coordinates, from -1 to 1, those of the goal and a 1 while
    the goal is in sight, three zeros later. Actions: 0 stay, 1 right, 2 up, 3 left, 4 down; a step
    against the border is one on the spot.

    The optimal policy returns 1 in every episode. The best one without memory returns
    (1 + `returns` / `size`^2) / (`returns` + 1): it ends the first leg on the goal. Where
    the goal is not in sight, what it does is the same for all goals: the other legs end in a cell
    that is independent of the goal.

    Args:
        num_envs: Number of environments, `B`.
        size: Cells along a side.
        returns: Legs in which the goal is not in sight.
        options: Those of every task: `TaskOptions`.

    Raises:
        ValueError: `size` is not an integer >= 2, or `returns` not one >= 1.
    """

    def __init__(
        self, num_envs: int = 1, *, size: int = 5, returns: int = 3, **options: Unpack[TaskOptions]
    ) -> None:
        (returns,) = check_whole("NavigateAndReturn", returns=returns)
        (size,) = check_whole("NavigateAndReturn", minimum=2, size=size)
        low, high = np.array([-1, -1, -1, -1, 0], np.float32), np.ones(5, np.float32)
        super().__init__(num_envs, spaces.Box(low, high), spaces.Discrete(5), **options)
        self.size = size
        self.returns = returns
        self.position = self.zeros(self.num_envs, 2)
        """The cell of each agent, `[B, 2]`."""
        self.goal = self.zeros(self.num_envs, 2)
        """The cell of each goal, `[B, 2]`."""
        self._leg_steps = 2 * (size - 1)
        self.episode_steps = self._leg_steps * (returns + 1)
        self._moves = self.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]])

    @property
    def optimal_return(self) -> float:
        """The mean return of the best policy."""
        return 1.0

    @property
    def memoryless_return(self) -> float:
        """The mean return of the best policy that sees the present observation alone."""
        return (1.0 + self.returns / self.size**2) / (self.returns + 1)

    def _begin(self, rows: Values, options: dict[str, Any]) -> None:
        self.position[rows] = self.draw_integers(self.size, len(rows), 2)
        self.goal[rows] = self.draw_integers(self.size, len(rows), 2)

    def _advance(self, actions: Values) -> tuple[Values, Values]:
        self.position = (self.position + self._moves[actions]).clip(0, self.size - 1)
        over, rows = self.clock.where(lambda elapsed: elapsed % self._leg_steps == 0)
        there = (self.position == self.goal).all(1) & over
        rewards = there / (self.returns + 1)
        if rows is not None:
            self.position[rows] = self.draw_integers(self.size, len(rows), 2)
        return rewards, self.elapsed >= self.episode_steps

    def _observe(self) -> Values:
        observation = self.zeros(self.num_envs, 5, dtype="float32")
        in_sight = (self.elapsed < self._leg_steps)[:, None]
        observation[:, :2] = self.position * (2 / (self.size - 1)) - 1
        observation[:, 2:4] = (self.goal * (2 / (self.size - 1)) - 1) * in_sight
        observation[:, 4:] = in_sight
        return observation

    @property
    def longest_episode(self) -> int:
        """The most steps that an episode can have."""
        return self._leg_steps * (self.returns + 1)

    def _cells(self, row: int) -> Image:
        """The grid with the goal and the agent; up is up."""
        cells = grid(self.size, self.size)
        in_sight = int(self.elapsed[row]) < self._leg_steps
        for place, colour in (
            (self.goal[row], GREEN if in_sight else dim(GREEN)),
            (self.position[row], AGENT),
        ):
            across, up = place.tolist()
            cells[self.size - 1 - up, across] = colour
        return cells


class NavigateAndReturn(SingleTask):
    """One NavigateAndReturn, with `size` and `returns`: see `NavigateAndReturnVectorEnv`."""

    vector_form = NavigateAndReturnVectorEnv
