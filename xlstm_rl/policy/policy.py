"""A policy: normaliser, network and the spaces that they were made for."""

from typing import Any, overload

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor, nn

from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.spaces import check_supported_spaces
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig, ObservationNormalizer
from xlstm_rl.policy.actor_critic import ActorCritic, Leaves
from xlstm_rl.policy.config import PolicyConfig

Array = NDArray[Any]


class Policy(nn.Module):
    """Acts one step at a time: observation and memory state in, action and memory state out.

    Args:
        observation_space: of one environment; Box or Discrete.
        action_space: of one environment; Discrete or one-dimensional Box.
        memory: the memory's configuration.
        policy: configuration of encoder and heads.
        normalization: whether observations are normalised.
        env: the environment that the policy is trained on, for `evaluate(policy)`.

    Raises:
        ValueError: a space is not supported.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        memory: MemoryConfig,
        policy: PolicyConfig,
        normalization: NormalizationConfig,
        env: EnvConfig | None = None,
    ) -> None:
        check_supported_spaces(observation_space, action_space)
        super().__init__()
        self.observation_space = observation_space
        self.action_space = action_space
        self.memory_config = memory
        self.policy_config = policy
        self.normalization_config = normalization
        self.env_config = env
        self.normalizer = ObservationNormalizer(observation_space, normalization)
        self.network = ActorCritic(observation_space, action_space, memory, policy)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def initial_state(self, batch_size: int) -> TensorDict:
        """Return the memory state of `batch_size` fresh episodes: all zeros."""
        leaves = self.network.initial_leaves(batch_size, self.device)
        return self.pack_state(leaves, batch_size)

    @overload
    def act(
        self,
        obs: Tensor,
        state: TensorDict | None = ...,
        reset: Any = ...,
        deterministic: bool = ...,
        generator: torch.Generator | None = ...,
    ) -> tuple[Tensor, TensorDict]: ...

    @overload
    def act(
        self,
        obs: Array,
        state: TensorDict | None = ...,
        reset: Any = ...,
        deterministic: bool = ...,
        generator: torch.Generator | None = ...,
    ) -> tuple[Array, TensorDict]: ...

    @torch.no_grad()
    def act(
        self,
        obs: Array | Tensor,
        state: TensorDict | None = None,
        reset: Any = None,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> tuple[Array | Tensor, TensorDict]:
        """Choose actions for a batch of B environments.

        Args:
            obs: raw observations `[B, *observation_shape]`, NumPy or torch.
            state: the memory state handed back by the step before; None: fresh.
            reset: `[B]` bool, true where `obs` is the first of an episode, or one bool for all;
                None: nowhere.
            deterministic: take the most probable action instead of a sample.
            generator: source of the samples; None: torch's default one.

        Returns:
            Actions `[B, *action_shape]` of the environment's action space, of the same kind
            (NumPy or torch) as `obs`, and the memory state after the step.

        Raises:
            ValueError: a shape does not fit the policy.
        """
        raw = torch.as_tensor(np.asarray(obs) if not isinstance(obs, Tensor) else obs)
        batch_size = self._check_observation(raw)
        leaves = (
            self.network.initial_leaves(batch_size, self.device)
            if state is None
            else self.unpack_state(state, batch_size)
        )
        x = self.normalizer(raw.to(self.device))
        params, _, leaves = self.network.step(x, leaves, self._as_reset(reset, batch_size))
        distribution = self.network.distribution
        chosen = distribution.mode(params) if deterministic else None
        action = distribution.to_env(
            distribution.sample(params, generator) if chosen is None else chosen
        )
        after = self.pack_state(leaves, batch_size)
        return (action if isinstance(obs, Tensor) else action.cpu().numpy()), after

    def pack_state(self, leaves: Leaves, batch_size: int) -> TensorDict:
        """Return bare state tensors as a TensorDict with one entry per memory."""
        packed, at = {}, 0
        for name, memory in self.network.memories().items():
            size = len(memory.state_keys)
            packed[name] = memory.pack_state(leaves[at : at + size], batch_size)
            at += size
        return TensorDict(packed, batch_size=(batch_size,))

    def unpack_state(self, state: TensorDict, batch_size: int) -> Leaves:
        """Return a state's bare tensors, checked and on the policy's device.

        Raises:
            ValueError: the state belongs to another policy or to another batch size.
        """
        memories = self.network.memories()
        found = sorted(map(str, state.keys()))
        if found != sorted(memories):
            raise ValueError(
                f"state holds {found}, this policy's memories are {sorted(memories)}: pass the "
                "state that this policy handed back, or None for a fresh one"
            )
        if tuple(state.batch_size) != (batch_size,):
            raise ValueError(
                f"state has batch size {list(state.batch_size)}, the observations have "
                f"[{batch_size}]: pass one state row per environment, or None for a fresh one"
            )
        leaves: Leaves = ()
        for name, memory in memories.items():
            leaves += memory.unpack_state(state[name])
        return tuple(leaf.to(self.device) for leaf in leaves)

    def _check_observation(self, observation: Tensor) -> int:
        expected = tuple(self.observation_space.shape or ())
        got = tuple(observation.shape)
        if len(got) != len(expected) + 1 or got[1:] != expected:
            raise ValueError(
                f"obs has shape {list(got)}, expected [B, {', '.join(map(str, expected))}]: act "
                "takes a batch; for one environment use policy.actor()"
            )
        return got[0]

    def _as_reset(self, reset: Any, batch_size: int) -> Tensor | None:
        if reset is None:
            return None
        flags = torch.as_tensor(reset)
        if flags.dtype != torch.bool or tuple(flags.shape) not in ((), (batch_size,)):
            raise ValueError(
                f"reset has shape {list(flags.shape)} and dtype {flags.dtype}, expected a bool or "
                f"bools [{batch_size}]: true where obs is the first of an episode"
            )
        return flags.expand(batch_size).to(self.device) if bool(flags.any()) else None

    def actor(self, num_envs: int | None = None, deterministic: bool = True) -> "Actor":
        """Return an actor that keeps the memory state between calls.

        Args:
            num_envs: None: one environment, observations and actions without a batch axis;
                otherwise the number of environments of a vector environment.
            deterministic: take the most probable action instead of a sample.
        """
        return Actor(self, num_envs, deterministic)


class Actor:
    """A policy with its memory state, for loops that would rather not carry the state.

    `action = actor(obs, reset=True)` at the first observation of an episode, `actor(obs)` after.
    """

    def __init__(self, policy: Policy, num_envs: int | None, deterministic: bool) -> None:
        if num_envs is not None and num_envs < 1:
            raise ValueError(f"num_envs={num_envs}: expected 1 or more, or None for one unbatched")
        self.policy = policy
        self.num_envs = num_envs
        self.deterministic = deterministic
        self.state = policy.initial_state(num_envs or 1)

    def __call__(self, obs: Any, reset: Any = None) -> Any:
        """Return the action for an observation, and remember.

        Args:
            obs: `[*observation_shape]`, or `[num_envs, *observation_shape]` for a vector
                environment.
            reset: true where `obs` is the first of an episode (`[num_envs]` or one bool).
        """
        if self.num_envs is not None:
            action, self.state = self.policy.act(obs, self.state, reset, self.deterministic)
            return action
        batched = obs.unsqueeze(0) if isinstance(obs, Tensor) else np.asarray(obs)[None]
        actions, self.state = self.policy.act(batched, self.state, reset, self.deterministic)
        action = actions[0]
        # Gymnasium's Discrete spaces accept NumPy integers, so no further conversion is needed.
        return action
