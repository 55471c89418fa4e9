"""MemoryChain, the task `memory_len` / `memory_size` of bsuite: remember a cue over a delay.

Source: Osband et al., Behaviour Suite for Reinforcement Learning, 2020, and its code
(`bsuite/environments/memory_chain.py`).
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from xlstm_rl.envs.batched import Array, BatchedVectorEnv


class MemoryChain(gym.Env[Array, np.int64]):
    """Show `bits` random signs first, ask for one of them `length` steps later.

    Observation `[2 + bits]`: the share of time left, the index of the bit that is asked for (zero
    but in the question), and the context, each bit -1 or 1 (zero but at the start). Action: 0 for
    -1, 1 for 1; only the last one counts. The reward is 1 if it names the bit, -1 if not, and 0
    before.

    As in bsuite, step k shows what time k - 1 holds: the context comes with the reset and once more
    with step 1, the question with step `length`, the reward with step `length + 1`, which ends the
    episode. (With `length=1` the question comes beside the context; from 2 on memory is needed.)

    The optimal policy returns 1 in every episode. For `length >= 2`, every policy without memory
    returns 0 on average, as does a random one.

    Args:
        length: Time from the start to the end of the question.
        bits: Size of the context.
        render_mode: None; there is nothing to see.

    Raises:
        ValueError: `length` or `bits` is no whole number of at least 1.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, length: int = 10, bits: int = 1, render_mode: str | None = None) -> None:
        self.observation_space, self.action_space = _chain_spaces(length, bits)
        self.render_mode = render_mode
        self.length = length
        self.bits = bits
        self._elapsed = 0
        self._context = np.zeros(bits, dtype=np.int64)
        self._query = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Draw a new context and question; there are no options."""
        super().reset(seed=seed)
        self._elapsed = 0
        self._context = self.np_random.integers(2, size=self.bits)
        self._query = int(self.np_random.integers(self.bits))
        return self._observe(0), {}

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Answer with 0 or 1.

        Raises:
            ValueError: The action is neither.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"the action is {action!r}, expected 0 or 1")
        observation = self._observe(self._elapsed)
        self._elapsed += 1
        if self._elapsed <= self.length:
            return observation, 0.0, False, False, {}
        reward = 1.0 if action == self._context[self._query] else -1.0
        return observation, reward, True, False, {}

    def _observe(self, time: int) -> Array:
        observation = np.zeros(2 + self.bits, dtype=np.float32)
        observation[0] = 1 - time / self.length
        if time == self.length - 1:
            observation[1] = self._query
        if time == 0:
            observation[2:] = 2 * self._context - 1
        return observation


class MemoryChainVectorEnv(BatchedVectorEnv):
    """`B` MemoryChains at once: the same task, `[B, 2 + bits]` observations from a few array ops.

    Args:
        num_envs: Number of environments, `B`.
        max_episode_steps: Truncate after so many steps; None: never.
        autoreset_mode: When a finished episode restarts.
        length: As in `MemoryChain`.
        bits: As in `MemoryChain`.
        render_mode: None; there is nothing to see.

    Raises:
        ValueError: `length` or `bits` is no whole number of at least 1.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        length: int = 10,
        bits: int = 1,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(
            num_envs, *_chain_spaces(length, bits), max_episode_steps, autoreset_mode, render_mode
        )
        self.length = length
        self.bits = bits
        self._rows = np.arange(num_envs)
        self._context = np.zeros((num_envs, bits), dtype=np.int64)
        self._query = np.zeros(num_envs, dtype=np.int64)

    def _begin(self, mask: npt.NDArray[np.bool_], options: dict[str, Any]) -> None:
        count = int(mask.sum())
        self._context[mask] = self.np_random.integers(2, size=(count, self.bits))
        self._query[mask] = self.np_random.integers(self.bits, size=count)

    def _advance(self, actions: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        # By hand, because action_space.contains takes longer than the step itself.
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() > 1:
            raise ValueError(f"the actions are {actions!r}, expected {self.num_envs} of 0 or 1")
        terminated = self._elapsed > self.length
        right = actions == self._context[self._rows, self._query]
        return np.where(terminated, np.where(right, 1.0, -1.0), 0.0), terminated

    def _observe(self) -> Array:
        time = np.maximum(self._elapsed - 1, 0)
        observation = np.empty((self.num_envs, 2 + self.bits), dtype=np.float32)
        observation[:, 0] = 1 - time / self.length
        observation[:, 1] = self._query * (time == self.length - 1)
        observation[:, 2:] = (2 * self._context - 1) * (time == 0)[:, None]
        return observation


def _chain_spaces(length: int, bits: int) -> tuple[spaces.Box, spaces.Discrete[np.int64]]:
    for name, value in (("length", length), ("bits", bits)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"{name} of MemoryChain is {value!r}, expected a whole number of at least 1"
            )
    low = np.array([0.0, 0.0] + [-1.0] * bits, dtype=np.float32)
    # One bit is asked for by index 0; the bound is 1 even so: Gymnasium warns of empty intervals.
    high = np.array([1.0, max(bits - 1, 1)] + [1.0] * bits, dtype=np.float32)
    return spaces.Box(low, high, dtype=np.float32), spaces.Discrete(2)
