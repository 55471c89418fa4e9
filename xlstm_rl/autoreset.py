"""One view of Gymnasium's three autoreset modes.

What differs between the modes is where the last observation of an episode stands and when the
next episode begins; everything behind this file sees one kind of transition.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from xlstm_rl.envs import autoreset_mode

Array = NDArray[Any]
BoolArray = NDArray[np.bool_]


@dataclass
class Transition:
    """What followed an action in each of B environments, and what the next step begins with."""

    reward: Array
    """`[B]`, zero at a dead step."""

    terminated: BoolArray
    """`[B]`, the episode ended by the task's own rules: no bootstrap."""

    truncated: BoolArray
    """`[B]`, the episode was cut: bootstrap from the final observation. Never with
    `terminated`."""

    observation: Array
    """`[B, ...]`, what the next action is chosen from."""

    reset: BoolArray
    """`[B]`, true where `observation` is the first of an episode."""

    dead: BoolArray
    """`[B]`, true where the next action is ignored because the environment only resets."""

    final_rows: NDArray[np.int64]
    """Environments whose final observation is not `observation` and was truncated."""

    final_observation: Array | None
    """`[len(final_rows), ...]`, those final observations; None where there are none."""


class EpisodeStream:
    """Steps a vector environment, whichever way it resets its episodes."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        self.env = env
        self.mode = autoreset_mode(env)
        self._ended = np.zeros(env.num_envs, dtype=bool)

    def reset(self, seed: int | None = None) -> Array:
        """Begin an episode in every environment and return its first observations `[B, ...]`."""
        observation, _ = self.env.reset(seed=seed)
        self._ended[:] = False
        return np.asarray(observation)

    def step(self, action: Array) -> Transition:
        """Apply actions `[B, ...]`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        truncated = truncated & ~terminated
        ended = terminated | truncated
        transition = Transition(
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            observation=observation,
            reset=ended,
            dead=np.zeros_like(ended),
            final_rows=_NO_ROWS,
            final_observation=None,
        )
        if self.mode == AutoresetMode.NEXT_STEP:
            # The step after an episode's last one only resets: what it answers is an episode's
            # first observation, and the action it was given went nowhere.
            transition.reset, transition.dead = self._ended, ended
            self._ended = ended
        elif ended.any():
            rows = np.flatnonzero(truncated)
            if self.mode == AutoresetMode.SAME_STEP:
                final = info["final_obs"] if rows.size else None
                final = None if final is None else np.stack([final[row] for row in rows])
            else:
                final = observation[rows]
                transition.observation, _ = self.env.reset(options={"reset_mask": ended})
            if rows.size:
                transition.final_rows, transition.final_observation = rows, final
        return transition


_NO_ROWS = np.empty(0, dtype=np.int64)
