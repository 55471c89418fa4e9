"""One view of Gymnasium's three autoreset modes, and of environments on arrays or on tensors.

What differs between the modes is where the last observation of an episode stands and when the
next episode begins; everything behind this file and `tensor_adapter` sees one kind of transition.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from xlstm_rl.collection.answers import (
    BoolArray,
    as_array,
    read_flags,
    read_rewards,
    unpack_reset,
    unpack_step,
)
from xlstm_rl.collection.infos import (
    Info,
    broken_episodes,
    final_observations,
    keys_of_last_step,
    number_of,
    numbers_at_end,
    only_rows,
    read_info,
    successes,
)
from xlstm_rl.envs import autoreset_mode
from xlstm_rl.envs.faults.error_context import EnvStepError, wrong_observation
from xlstm_rl.envs.faults.processes import give_up, recover
from xlstm_rl.envs.spaces.leaves import Leaf, is_nested, space_leaves, take
from xlstm_rl.errors import EnvError
from xlstm_rl.policy.arrays import as_tensor, to_numpy

Answers = Any
"""What an environment answers: NumPy arrays, or tensors if it is stepped by a
`TensorVectorEnvAdapter`."""

RawObservation = Answers | dict[str, Answers]
"""Observations of a space without parts, or those of a Dict or Tuple space by the leaf's name."""


@dataclass
class Transition:
    """What followed an action in each of B environments, and what the next step begins with."""

    reward: Answers
    """`[B]`, zero at an autoreset step, whatever the environment says there."""

    terminated: Answers
    """`[B]`, the episode ended by the task's own rules: no bootstrap. False at an autoreset
    step."""

    truncated: Answers
    """`[B]`, the episode was cut: bootstrap from the final observation. Never with `terminated`,
    and false at an autoreset step."""

    observation: RawObservation
    """`[B, ...]`, what the next action is chosen from."""

    reset: Answers
    """`[B]`, true where `observation` is the first of an episode."""

    autoreset: Answers
    """`[B]`, true where the next action is ignored because the environment only resets."""

    final_rows: Tensor | slice
    """Environments whose final observation is not `observation` and was truncated; on tensors all,
    since nobody asks which."""

    final_observation: RawObservation | None
    """`[N, ...]` of those environments, final observations; None where there are none. It matters
    only where `truncated` is true."""

    broken: BoolArray | None
    """`[B]`, true where the episode that ended was broken by an error; None: nowhere."""

    infos: list[Info]
    """What the environments said beside `observation`: of the step, then of the resets, if any."""

    success: Answers | None
    """`[B]`, 1 or 0 where an episode ended and said whether it succeeded, NaN elsewhere; None:
    nowhere."""

    said: dict[str, Answers] = field(default_factory=dict)
    """`[B]` by keyword, numbers that episodes that ended had in their last info, NaN elsewhere."""

    lacks_final: bool = False
    """Truncated episodes, if there are any, have no final observation: on tensors, where nobody
    asks in the step."""


class VectorEnvAdapter:
    """Steps a vector environment that answers arrays, whichever way it resets its episodes.

    It is also the border between them and the policy's tensors.

    Args:
        env: the vector environment.
        device: where the policy is.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], device: torch.device | str = "cpu") -> None:
        self.env = env
        self.device = torch.device(device)
        self.mode = autoreset_mode(env)
        self.ended: Answers = np.zeros(env.num_envs, dtype=bool)
        """`[B]`, true where the next step only resets."""
        space = env.single_observation_space
        self._leaves, self._is_nested = space_leaves(space), is_nested(space)
        self._merges_infos = isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
        self.first_info: Info = {}
        self.keywords: tuple[str, ...] = ()
        """Keys of the info of an episode's last step whose numbers are read."""
        self.keys_at_end: set[str] = set()
        """Those that were there, where any are read."""
        self.steps = 0

    def reset(self, seed: int | list[int] | None = None) -> RawObservation:
        """Begin an episode in every environment and return its first observations `[B, ...]`.

        A call that was cut off, by an interrupt or an error, is brought to its end first.

        Raises:
            EnvError: an environment raised, died, or observed what is not in its space.
        """
        self._call(recover, self.env)
        self.ended = self.flags(False)
        observation, self.first_info = self._reset(seed=seed)
        return observation

    def _reset(self, **arguments: Any) -> tuple[RawObservation, Info]:
        answer = self._call(self.env.reset, **arguments)
        try:
            observation, info = unpack_reset(answer)
            return self._read(observation), read_info(info, self.env.num_envs)
        except ValueError as error:
            raise EnvError(f"step {self.steps}: {error}") from error

    def step(self, action: Any) -> Transition:
        """Apply actions `[B, ...]`, nested like the action space.

        Raises:
            EnvError: an environment raised, died, or answered what cannot be used.
        """
        answer = self._call(self.env.step, action)
        try:
            transition = self._transition(*unpack_step(answer))
        except ValueError as error:
            raise EnvError(f"step {self.steps}: {error}") from error
        self.steps += self.env.num_envs
        return transition

    def _transition(
        self, answer: Any, reward: Any, terminated: Any, truncated: Any, info: Any
    ) -> Transition:
        rows, skipped = self.env.num_envs, self.ended
        observation, reward = self._read(answer), read_rewards(reward, rows)
        terminated = read_flags(terminated, "terminated", rows)
        truncated = read_flags(truncated, "truncated", rows)
        info = read_info(info, rows)
        if skipped.any():
            # These only reset in this step. A wrapper may have made something of that.
            reward = np.where(skipped, 0.0, reward)
            terminated, truncated = terminated & ~skipped, truncated & ~skipped
        truncated = truncated & ~terminated
        ended = terminated | truncated
        transition = Transition(
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            observation=observation,
            reset=ended,
            autoreset=np.zeros_like(ended),
            final_rows=slice(0),
            final_observation=None,
            broken=None,
            infos=[info],
            success=None,
        )
        if ended.any():
            transition.broken = broken_episodes(info, ended)
            transition.success = successes(info, ended, self._merges_infos)
            if self.keywords:
                self.keys_at_end |= keys_of_last_step(info)
            for key in self.keywords:
                values = numbers_at_end(info, ended, key, number_of, self._merges_infos)
                if values is not None:
                    transition.said[key] = values
        if self.mode == AutoresetMode.NEXT_STEP:
            # The step after an episode's last one only resets: what it answers is an episode's
            # first observation, and the action it was given went nowhere.
            transition.reset, transition.autoreset = skipped, ended
            self.ended = ended
        elif ended.any():
            cut = np.flatnonzero(truncated)
            if self.mode == AutoresetMode.SAME_STEP:
                final = self._final(info, cut) if cut.size else None
            else:
                final = _rows(observation, cut)
                transition.observation, first_info = self._reset(options={"reset_mask": ended})
                transition.infos = [only_rows(info, ~ended), first_info]
            if cut.size:
                transition.final_rows, transition.final_observation = self.tensor(cut), final
        return transition

    def tensor(self, values: Any) -> Tensor:
        """Return what the environment answered as a tensor on the policy's device."""
        return as_tensor(values).to(self.device)

    def actions(self, action: Any) -> Any:
        """Return a policy's actions, nested like the space, as the environment takes them."""
        return to_numpy(action)

    def resets(self, flags: Any) -> Tensor | None:
        """Return flags `[B]` for the memory; None: none is set.

        Most steps begin no episode anywhere; the memory's path without masks is cheaper.
        """
        return self.tensor(flags) if flags.any() else None

    def check(self) -> None:
        """Refuse what could not be looked at in each step; called once per rollout."""

    def flags(self, value: bool) -> Any:
        """Return flags `[B]` that are all alike."""
        return np.full(self.env.num_envs, value)

    def allocate(self, lead: tuple[int, ...], kind: type[bool] | type[float]) -> Any:
        """Return room for a rollout's flags or rewards, where the environment answers them."""
        return np.empty(lead, dtype=kind)

    def on_host(self, values: Any) -> Any:
        """Return a rollout's flags or rewards as an array."""
        return values

    def _read(self, observation: Any) -> RawObservation:
        if not self._is_nested:
            return self._checked(self._leaves[0], observation)
        return {
            leaf.name: self._checked(leaf, self._part(observation, leaf)) for leaf in self._leaves
        }

    def _part(self, observation: Any, leaf: Leaf) -> Any:
        try:
            return take(observation, leaf.path)
        except ValueError as error:
            raise ValueError(f"the observation: {error}") from error

    def _final(self, info: Info, rows: NDArray[np.int64]) -> RawObservation:
        parts = final_observations(info, rows, self._leaves, self.env.num_envs)
        if not self._is_nested:
            return parts[0]
        return {leaf.name: part for leaf, part in zip(self._leaves, parts, strict=True)}

    def _checked(self, leaf: Leaf, values: Any) -> Answers:
        values = as_array(values, f"observation {leaf.name!r}" if leaf.path else "observation")
        wrong = wrong_observation(leaf, values, self.env.num_envs)
        if wrong is not None:
            row, what = wrong
            raise ValueError(what if row is None else f"environment {row}: {what}")
        return values

    def _call(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the environment, and tell what it did wrong, and when."""
        try:
            return call(*args, **kwargs)
        except EnvStepError as error:
            raise EnvError(f"step {self.steps}: {error}") from error
        except (EOFError, ConnectionError) as error:
            gone = give_up(self.env)
            which = f" of environments {gone}" if gone else ""
            raise EnvError(
                f"step {self.steps}: a process{which} died ({type(error).__name__}): it was "
                "killed, or crashed without a Python error; env.vectorization=sync shows where"
            ) from error
        except Exception as error:
            raise EnvError(
                f"step {self.steps}: {self.env} raised {type(error).__name__}: {error}"
            ) from error


def _rows(observation: RawObservation, rows: NDArray[np.int64]) -> RawObservation:
    if isinstance(observation, dict):
        return {name: part[rows] for name, part in observation.items()}
    return observation[rows]
