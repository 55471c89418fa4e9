"""MemoryChain, the task `memory_len` / `memory_size` of bsuite: remember a cue over a delay.

Source: Osband et al., Behaviour Suite for Reinforcement Learning, 2020, and its code
(`bsuite/environments/memory_chain.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from typing_extensions import Unpack

from xlstm_rl.envs.arguments import check_whole
from xlstm_rl.envs.tasks.drawing import AGENT, GREEN, RED, Image, cells_of, dim
from xlstm_rl.envs.tasks.task import SingleTask, TaskOptions, TaskVectorEnv
from xlstm_rl.envs.tasks.values import Values


class MemoryChainVectorEnv(TaskVectorEnv):
    """Show `bits` random signs first, ask for one of them `length` steps later.

    Observation `[2 + bits]`: the share of time left, the index of the bit that is asked for (zero
    but in the question), and the context, each bit -1 or 1 (zero but at the start). Action: 0 for
    -1, 1 for 1; only the last one counts. The reward is 1 if it names the bit, -1 if not, and 0
    before.

    As in bsuite, step k shows what time k - 1 holds: the context comes with the reset and once more
    with step 1, the question with step `length`, the reward with step `length + 1`, which ends the
    episode. (With `length=1` the question comes beside the context; from 2 on memory is needed.)

    The optimal policy returns 1 in every episode. For `length >= 2`, every policy without memory
    returns 0 on average, as does a random one; for `length=1` it returns 1.

    Args:
        num_envs: Number of environments, `B`.
        length: Time from the start to the end of the question.
        bits: Size of the context.
        options: Those of every task: `TaskOptions`.

    Raises:
        ValueError: `length` or `bits` is not an integer >= 1.
    """

    def __init__(
        self, num_envs: int = 1, *, length: int = 10, bits: int = 1, **options: Unpack[TaskOptions]
    ) -> None:
        length, bits = check_whole("MemoryChain", length=length, bits=bits)
        low = np.array([0.0, 0.0] + [-1.0] * bits, dtype=np.float32)
        # One bit is asked for by index 0; the bound is 1 even so: Gymnasium warns of empty
        # intervals.
        high = np.array([1.0, max(bits - 1, 1)] + [1.0] * bits, dtype=np.float32)
        super().__init__(
            num_envs, spaces.Box(low, high, dtype=np.float32), spaces.Discrete(2), **options
        )
        self.length = length
        self.bits = bits
        self.episode_steps = length + 1
        self.context = self.zeros(self.num_envs, bits)
        """The bits, 0 or 1, `[B, bits]`."""
        self.query = self.zeros(self.num_envs)
        """Which of them is asked for, `[B]`."""

    @property
    def optimal_return(self) -> float:
        """The mean return of the best policy."""
        return 1.0

    @property
    def memoryless_return(self) -> float:
        """The mean return of the best policy that sees the present observation alone."""
        return 1.0 if self.length == 1 else 0.0

    def _begin(self, rows: Values, options: dict[str, Any]) -> None:
        self.context[rows] = self.draw_integers(2, len(rows), self.bits)
        self.query[rows] = self.draw_integers(self.bits, len(rows))

    def _advance(self, actions: Values) -> tuple[Values, Values]:
        terminated = self.elapsed > self.length
        right = actions == self.context[self.every, self.query]
        return (2.0 * right - 1.0) * terminated, terminated

    def _observe(self) -> Values:
        time = (self.elapsed - 1).clip(0)
        observation = self.zeros(self.num_envs, 2 + self.bits, dtype="float32")
        observation[:, 0] = 1 - time / self.length
        observation[:, 1] = self.query * (time == self.length - 1)
        observation[:, 2:] = (2 * self.context - 1) * (time == 0)[:, None]
        return observation

    @property
    def longest_episode(self) -> int:
        """The most steps that an episode can have."""
        return self.length + 1

    def _cells(self, row: int) -> Image:
        """A row of bits, and under each whether it is asked for."""
        time = max(int(self.elapsed[row]) - 1, 0)
        bits = cells_of(self.bits)
        questions = bits.copy()
        for index, bit in enumerate(self.context[row].tolist()):
            colour = GREEN if bit else RED
            bits.reshape(-1, 3)[index] = colour if time == 0 else dim(colour)
        if time == self.length - 1:
            questions.reshape(-1, 3)[int(self.query[row])] = AGENT
        return np.concatenate((bits, questions))


class MemoryChain(SingleTask):
    """One MemoryChain, with the arguments `length` and `bits`: see `MemoryChainVectorEnv`."""

    vector_form = MemoryChainVectorEnv

    def __init__(self, length: int = 10, bits: int = 1, **kwargs: Any) -> None:
        self.length, self.bits = check_whole("MemoryChain", length=length, bits=bits)
        super().__init__(length=length, bits=bits, **kwargs)
