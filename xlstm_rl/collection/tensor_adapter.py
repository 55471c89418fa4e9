"""Episodes of vector environments that answer tensors, without a look at them on the host."""

from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from xlstm_rl.collection.choices import ChoiceCheck
from xlstm_rl.collection.env_adapter import RawObservation, Transition, VectorEnvAdapter
from xlstm_rl.collection.infos import (
    SUCCESS,
    Info,
    final_name,
    keys_of_last_step,
    of_last_step,
    read_info,
)
from xlstm_rl.config import ConfigError
from xlstm_rl.envs.spaces.leaves import Leaf, observation_kind
from xlstm_rl.errors import EnvError
from xlstm_rl.policy.arrays import as_tensor
from xlstm_rl.policy.policy import Policy


class TensorVectorEnvAdapter(VectorEnvAdapter):
    """Steps a vector environment that takes and answers tensors; they stay where they are.

    Whatever depends on which episodes ended is computed for all environments and chosen by mask: to
    ask would make the host wait for the device at each step. Only with DISABLED autoreset, where
    the episodes must be begun from here, somebody has to ask, once a step.

    The environment has `tensors = True`. In SAME_STEP mode `info["final_obs"]` holds tensors
    `[B, ...]` whenever an episode may be truncated; only what truncated episodes have there counts.
    With `may_truncate = False` it says that none ever is, which saves the values of those.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], device: torch.device | str = "cpu") -> None:
        super().__init__(env, device)
        self._nobody = self.ended = self.flags(False)
        self._odd: Tensor | None = None
        self._choices = ChoiceCheck(self._leaves, self.device)
        self._may_truncate = bool(getattr(env, "may_truncate", True))

    def _transition(
        self, answer: Any, reward: Any, terminated: Any, truncated: Any, info: Any
    ) -> Transition:
        skipped = self.ended
        observation, reward = self._read(answer), self._one_each(reward, "reward")
        terminated = self._read_flags(terminated, "terminated")
        truncated = self._read_flags(truncated, "truncated")
        info = read_info(info, self.env.num_envs)
        if self.mode == AutoresetMode.NEXT_STEP:
            # These only reset in this step. A wrapper may have made something of that.
            reward = reward.masked_fill(skipped, 0.0)
            terminated, truncated = terminated & ~skipped, truncated & ~skipped
        truncated = truncated & ~terminated
        ended = terminated | truncated
        transition = Transition(
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            observation=observation,
            reset=ended,
            autoreset=self._nobody,
            final_rows=slice(None),
            final_observation=None,
            broken=None,
            infos=[info],
            success=self._said_at_end(info, ended, SUCCESS),
        )
        if self.keywords:  # of every step: nobody asks whether an episode ended in it
            self.keys_at_end |= keys_of_last_step(info)
        for key in self.keywords:
            values = self._said_at_end(info, ended, key)
            if values is not None:
                transition.said[key] = values
        if self.mode == AutoresetMode.NEXT_STEP:
            transition.reset, transition.autoreset = skipped, ended
            self.ended = ended
        elif self.mode == AutoresetMode.SAME_STEP:
            name = final_name(info)
            transition.lacks_final = self._may_truncate and name is None
            if self._may_truncate and name is not None:
                # of episodes that go on anything may stand there
                final = _merge(truncated, super()._read(info[name]), observation)
                self._choices.look(final)
                transition.final_observation = final
        elif bool(ended.any()):
            if self._may_truncate:  # a copy: the environment may write the next one over it
                transition.final_observation = _cloned(observation)
            transition.observation, first_info = self._reset(options={"reset_mask": ended})
            transition.infos = [info, first_info]
        return transition

    def check(self) -> None:
        """Refuse flags that were numbers other than 0 and 1.

        Raises:
            EnvError: there were some since the last look.
        """
        odd, self._odd = self._odd, None
        if odd is not None and bool(odd.any()):
            row = int(odd.nonzero()[0])
            raise EnvError(
                f"step {self.steps} or before: environment {row} answered numbers other than 0 "
                "and 1 for terminated or truncated, expected bools"
            )

    def _read_flags(self, values: Any, name: str) -> Tensor:
        flags = self._one_each(values, name)
        if flags.dtype == torch.bool:
            return flags
        odd = (flags != 0) & (flags != 1)
        self._odd = odd if self._odd is None else self._odd | odd
        return flags != 0

    def _one_each(self, values: Any, name: str) -> Tensor:
        """Return rewards or flags as a tensor `[B]`; arrays and `[B, 1]` are taken too."""
        rows = self.env.num_envs
        try:
            tensor = torch.as_tensor(values, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{name} is a {type(values).__name__}, expected a tensor, since {self.env} has "
                "tensors=True"
            ) from error
        if tuple(tensor.shape) == (rows, 1):
            tensor = tensor.squeeze(1)
        if tuple(tensor.shape) != (rows,) or tensor.is_complex():
            raise ValueError(
                f"{name} has shape {list(tensor.shape)} and dtype {tensor.dtype}, expected "
                f"[{rows}]: one for each environment"
            )
        return tensor

    def _said_at_end(self, info: Info, ended: Tensor, key: str) -> Tensor | None:
        holder = of_last_step(info, key)
        said, mask = self._numbers(holder.get(key)), self._numbers(holder.get(f"_{key}"))
        if said is None:
            return None
        counted = ended if mask is None else ended & (mask != 0)
        if key == SUCCESS:
            counted = counted & (said >= 0) & (said <= 1)
        return torch.where(counted, said.double(), torch.nan)

    def _numbers(self, values: Any) -> Tensor | None:
        """Return numbers or flags `[B]` of an info, also those in host memory; None: no such."""
        if values is None:
            return None
        if not isinstance(values, Tensor):
            try:
                array = np.asarray(values)
            except (TypeError, ValueError, RuntimeError):
                return None
            if array.dtype.kind not in "fiub":
                return None
            values = as_tensor(array)
        if values.numel() != self.env.num_envs or values.is_complex():
            return None
        return self.tensor(values).reshape(-1)

    def tensor(self, values: Any) -> Tensor:
        """Return what the environment answered on the policy's device, where it mostly is."""
        tensor: Tensor = values.to(self.device)
        return tensor

    def actions(self, action: Any) -> Any:
        """Return a policy's actions as the environment takes them: as they are."""
        return action

    def resets(self, flags: Any) -> Tensor | None:
        """Return flags `[B]` for the memory, whether any is set or not."""
        found: Tensor = flags
        return found

    def flags(self, value: bool) -> Any:
        """Return flags `[B]` that are all alike."""
        return torch.full((self.env.num_envs,), value, device=self.device)

    def allocate(self, lead: tuple[int, ...], kind: type[bool] | type[float]) -> Any:
        """Return room for a rollout's flags or rewards, on the policy's device."""
        dtype = torch.bool if kind is bool else torch.float64
        return torch.empty(lead, dtype=dtype, device=self.device)

    def on_host(self, values: Any) -> Any:
        """Return a rollout's flags or rewards as an array; this waits for the device."""
        return values.cpu().numpy()

    def _read(self, observation: Any) -> RawObservation:
        found = super()._read(observation)
        self._choices.look(found)
        return found

    def _checked(self, leaf: Leaf, values: Any) -> Any:
        """Refuse what is seen without a look at the numbers: a kind, a shape, a type."""
        what = f"observation {leaf.name!r}" if leaf.path else "observation"
        if not isinstance(values, Tensor):
            raise ValueError(
                f"the {what} is a {type(values).__name__}, expected a tensor, "
                f"since {self.env} has tensors=True"
            )
        expected = (self.env.num_envs, *(leaf.space.shape or ()))
        if tuple(values.shape) != expected:
            raise ValueError(
                f"the {what} has shape {list(values.shape)}, expected {list(expected)}"
            )
        kind, dtype = observation_kind(leaf.space), values.dtype
        choices = kind in ("discrete", "multi_discrete")
        is_wrong = (choices and dtype.is_floating_point) or dtype.is_complex
        if is_wrong or (kind == "image" and dtype != torch.uint8):
            raise ValueError(f"the {what} has dtype {dtype}, its space is {leaf.space}")
        return self.tensor(values)


def _cloned(observation: Any) -> RawObservation:
    if isinstance(observation, dict):
        return {name: part.clone() for name, part in observation.items()}
    return observation.clone()


def _merge(rows: Tensor, chosen: Any, others: Any) -> RawObservation:
    """Return observations that are `chosen` in some rows, a mask `[B]`, and others elsewhere."""
    if isinstance(chosen, dict):
        return {name: _merge(rows, part, others[name]) for name, part in chosen.items()}
    return torch.where(rows.view(-1, *[1] * (chosen.ndim - 1)), chosen, others)


def make_env_adapter(env: VectorEnv[Any, Any, Any], policy: Policy) -> VectorEnvAdapter:
    """Return the adapter of a vector environment for a policy, on arrays or on tensors.

    Raises:
        ConfigError: the environment answers tensors, and the policy reads action masks.
    """
    if not getattr(env, "tensors", False):
        return VectorEnvAdapter(env, policy.device)
    if policy.auxiliary.reads_mask:
        raise ConfigError(
            f"policy.action_mask={policy.policy_config.action_mask!r} does not go with an "
            "environment that answers tensors: set env.kwargs.tensors to false"
        )
    return TensorVectorEnvAdapter(env, policy.device)
