"""Episodes of vector environments that answer tensors, without a look at them on the host."""

from typing import Any

import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from xlstm_rl.collection.env_adapter import RawObservation, Transition, VectorEnvAdapter
from xlstm_rl.config import ConfigError
from xlstm_rl.envs.spaces.leaves import Leaf, observation_kind
from xlstm_rl.errors import EnvError
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
        self._nobody = self._ended = self.flags(False)
        self._may_truncate = bool(getattr(env, "may_truncate", True))

    def reset(self, seed: int | list[int] | None = None) -> RawObservation:
        """Begin an episode in every environment and return its first observations `[B, ...]`.

        Raises:
            EnvError: the environment raised, or answered no tensors of its space.
        """
        observation, self.first_info = self._call(self.env.reset, seed=seed)
        self._ended = self._nobody
        return self._read(observation)

    def step(self, action: Any) -> Transition:
        """Apply actions `[B, ...]`, nested like the action space.

        Raises:
            EnvError: the environment raised, or answered no tensors of its space.
        """
        answer, reward, terminated, truncated, info = self._call(self.env.step, action)
        observation = self._read(answer)
        terminated = self.tensor(terminated)
        truncated = self.tensor(truncated) & ~terminated
        ended = terminated | truncated
        transition = Transition(
            reward=self.tensor(reward),
            terminated=terminated,
            truncated=truncated,
            observation=observation,
            reset=ended,
            autoreset=self._nobody,
            final_rows=slice(None),
            final_observation=None,
            broken=None,
            infos=[info],
        )
        if self.mode == AutoresetMode.NEXT_STEP:
            transition.reset, transition.autoreset = self._ended, ended
            self._ended = ended
        elif self.mode == AutoresetMode.SAME_STEP:
            if self._may_truncate and "final_obs" in info:
                final = self._read(info["final_obs"])
                transition.final_observation = _merge(truncated, final, observation)
        elif bool(ended.any()):
            answer, first_info = self._call(self.env.reset, options={"reset_mask": ended})
            transition.infos = [info, first_info]
            transition.observation = self._read(answer)
            if self._may_truncate:
                transition.final_observation = observation
        self.steps += self.env.num_envs
        return transition

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
        dtype = torch.bool if kind is bool else torch.float32
        return torch.empty(lead, dtype=dtype, device=self.device)

    def on_host(self, values: Any) -> Any:
        """Return a rollout's flags or rewards as an array; this waits for the device."""
        return values.cpu().numpy()

    def _checked(self, leaf: Leaf, values: Any) -> Any:
        """Refuse what is seen from the host: a kind, a shape, a type. The numbers stay unseen."""
        what = f"observation {leaf.name!r}" if leaf.path else "observation"
        if not isinstance(values, Tensor):
            raise EnvError(
                f"step {self.steps}: the {what} is a {type(values).__name__}, expected a tensor, "
                f"since {self.env} has tensors=True"
            )
        expected = (self.env.num_envs, *(leaf.space.shape or ()))
        if tuple(values.shape) != expected:
            raise EnvError(
                f"step {self.steps}: the {what} has shape {list(values.shape)}, expected "
                f"{list(expected)}"
            )
        kind, dtype = observation_kind(leaf.space), values.dtype
        choices = kind in ("discrete", "multi_discrete")
        if (choices and dtype.is_floating_point) or (kind == "image" and dtype != torch.uint8):
            raise EnvError(
                f"step {self.steps}: the {what} has dtype {dtype}, its space is {leaf.space}"
            )
        return self.tensor(values)


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
