"""Parity: say at every step whether the ones seen so far are odd in number."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from typing_extensions import Unpack

from xlstm_rl.envs.arguments import check_whole
from xlstm_rl.envs.tasks.drawing import AGENT, BACKGROUND, GREEN, RED, Image, dim, grid
from xlstm_rl.envs.tasks.task import SingleTask, TaskOptions, TaskVectorEnv
from xlstm_rl.envs.tasks.values import Values


class ParityVectorEnv(TaskVectorEnv):
    """Show `length` random bits one by one, ask at each for the parity of all bits so far.

    Observation: the bit, 0 or 1. Action: 1 if the number of ones so far, the bit in sight
    included, is odd, else 0. The reward is 1 / `length` for the right answer and -1 / `length` for
    the wrong one; the answer to the last bit ends the episode.

    One bit of state decides, but every bit may flip it: a memory must track a state, a mere sum of
    what it has seen does not do.

    The optimal policy returns 1 in every episode. The best one without memory returns
    1 / `length`: it repeats the bit, which is right at the first step; at all others the parity is
    independent of the bit in sight.

    Args:
        num_envs: Number of environments, `B`.
        length: Number of bits.
        options: Those of every task: `TaskOptions`.

    Raises:
        ValueError: `length` is not an integer >= 1.
    """

    def __init__(
        self, num_envs: int = 1, *, length: int = 16, **options: Unpack[TaskOptions]
    ) -> None:
        (length,) = check_whole("Parity", length=length)
        super().__init__(num_envs, spaces.Discrete(2), spaces.Discrete(2), **options)
        self.length = length
        self.episode_steps = length
        self.bit = self.zeros(self.num_envs)
        """The bit in sight, `[B]`."""
        self.parity = self.zeros(self.num_envs)
        """The parity of the bits so far, `[B]`."""

    @property
    def optimal_return(self) -> float:
        """The mean return of the best policy."""
        return 1.0

    @property
    def memoryless_return(self) -> float:
        """The mean return of the best policy that sees the present observation alone."""
        return 1.0 / self.length

    def _begin(self, rows: Values, options: dict[str, Any]) -> None:
        bit = self.draw_integers(2, len(rows))
        self.bit[rows] = bit
        self.parity[rows] = bit

    def _advance(self, actions: Values) -> tuple[Values, Values]:
        right = actions == self.parity
        self.bit = self.draw_integers(2, self.num_envs)
        self.parity = self.parity ^ self.bit
        return (2.0 * right - 1.0) / self.length, self.elapsed >= self.length

    def _observe(self) -> Values:
        return self.bit + 0  # a copy: `_begin` writes into the bits

    @property
    def longest_episode(self) -> int:
        """The most steps that an episode can have."""
        return self.length

    def _cells(self, row: int) -> Image:
        """The bit in sight, and the parity of all bits so far."""
        cells = grid(1, 2)
        cells[0, 0] = AGENT if int(self.bit[row]) else BACKGROUND
        cells[0, 1] = dim(GREEN) if int(self.parity[row]) else dim(RED)
        return cells


class Parity(SingleTask):
    """One Parity, with the argument `length`: see `ParityVectorEnv`."""

    vector_form = ParityVectorEnv
