"""What a policy is: normaliser, network, and the spaces that they were made for."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.spaces.support import check_supported_spaces, describe_space
from xlstm_rl.memory import MemoryConfig, StateTensors
from xlstm_rl.normalization import NormalizationConfig, Observation, make_normalizer
from xlstm_rl.options.arguments import check_whole
from xlstm_rl.policy.actions.mask import ActionMask
from xlstm_rl.policy.actor_critic import CRITIC_MEMORY, RENAMED_MEMORIES, ActorCritic
from xlstm_rl.policy.arrays import as_tensor
from xlstm_rl.policy.auxiliary.inputs import AuxiliaryInputs
from xlstm_rl.policy.auxiliary.reader import AuxiliaryReader, AuxiliaryValues, check_mask_key
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.encoders.observations import ObservationReader
from xlstm_rl.policy.native_step import RawInput
from xlstm_rl.policy.trained_on import TrainedOn


class PolicyModule(nn.Module):
    """Normaliser, auxiliary inputs and network, and the state that acting carries for them.

    Args:
        observation_space: of one environment; see `envs.check_supported_spaces`.
        action_space: of one environment; likewise.
        memory: the memory's configuration.
        policy: configuration of encoder and heads.
        normalization: whether observations are normalised.
        env: the environment that the policy is trained on, for `evaluate`; its id is `CUSTOM_ENV`
            where it was a callable or a ready vector environment.

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
        self.trained_on = TrainedOn()
        self.reader = ObservationReader(observation_space)
        check_mask_key(observation_space, policy.mask_in_observation)
        self.normalizer = make_normalizer(
            observation_space, normalization, policy.mask_in_observation
        )
        self.network = ActorCritic(observation_space, action_space, memory, policy)
        distribution = self.network.distribution
        self.auxiliary = AuxiliaryInputs(distribution, policy, normalization)
        self.auxiliary_reader = AuxiliaryReader(
            observation_space, ActionMask(action_space, distribution), self.auxiliary, policy
        )

    def __repr__(self) -> str:
        """Say in a few lines what it is; `policy.network` shows its modules."""
        weights = sum(one.numel() for one in self.parameters())
        spaces = f"{describe_space(self.observation_space)} -> {describe_space(self.action_space)}"
        return (
            f"{type(self).__name__}({spaces},\n"
            f"    {self.memory_config},\n"
            f"    {self.policy_config},\n"
            f"    {self.normalization_config},\n"
            f"    {weights:,} weights on {self.device})"
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.any_weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, in which the network computes.

        It is torch's default one when the policy is made; `policy.double()` and its like change it.
        Statistics and the bounds of spaces keep their own precision.
        """
        return self.any_weight.dtype

    @property
    def any_weight(self) -> Tensor:
        """Stands for all: every step asks where and what they are, and `parameters()` is slow."""
        return self.network.any_weight

    def initial_state(self, batch_size: int, critic: bool = True) -> TensorDict:
        """Return the memory state of `batch_size` fresh episodes: all zeros.

        Args:
            batch_size: number of environments B.
            critic: with the state of the critic's memory, where it has its own. No action depends
                on it: acting from a state without it costs about half as much.
        """
        batch_size = check_whole("batch_size", batch_size, 0)
        tensors = self.initial_tensors(batch_size, self.device, critic)
        return self.pack_state(tensors, batch_size, critic)

    def initial_tensors(
        self, batch_size: int, device: torch.device | None = None, critic: bool = True
    ) -> StateTensors:
        """Return the bare tensors of `initial_state`."""
        own = self.auxiliary.initial_tensors(batch_size, device)
        return own + self.network.initial_tensors(batch_size, device, critic)

    @torch.no_grad()
    def step(
        self,
        obs: Observation,
        tensors: StateTensors,
        reset: Tensor | None,
        deterministic: bool = True,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        inplace: bool = False,
        auxiliary: AuxiliaryValues = (None, None),
    ) -> tuple[Any, StateTensors]:
        """Do what `act` does, on bare tensors that are where the policy is, unchecked.

        This is the step of `Policy.act` and of every actor. On a CUDA device nothing in it waits
        for the device, so that it can be captured in a CUDA graph.

        Args:
            obs: raw observations `[B, *observation_shape]`, by the leaf's name where the space is
                nested, as `reader.read` returns them.
            tensors: the state of the auxiliary inputs and of the memory, and if need be of the
                critic's behind it.
            reset: `[B]` bool, or None: nowhere.
            deterministic: take the most probable action instead of a sample.
            generator: source of the samples, or one for each row; None: torch's default one.
            inplace: overwrite the tensors and hand them back.
            auxiliary: reward and flags of the action mask, as `AuxiliaryReader.read` returns them.

        Returns:
            Actions `[B, *action_shape]` of the environment's action space, and the state after.
        """
        inputs, distribution = self.auxiliary, self.network.distribution
        raw: RawInput | None = None
        own: StateTensors = ()
        if isinstance(obs, Tensor) and inputs.reads_action_alone:
            count = len(inputs.state_shapes)
            own, tensors = tensors[:count], tensors[count:]
            raw = RawInput(self.normalizer, own, lambda x: inputs.join(x, own, reset, *auxiliary))
        elif isinstance(obs, Tensor) and not inputs.is_active:
            raw = RawInput(self.normalizer)
        else:
            obs, own, tensors = self.network_input(obs, tensors, reset, auxiliary)
        params, tensors = self.network.action_step(obs, tensors, reset, inplace, raw)
        if deterministic:
            action = distribution.mode(params)
        elif generator is None or isinstance(generator, torch.Generator):
            action = distribution.sample(params, generator)
        else:
            action = distribution.sample_rows(params, generator)
        if own:
            tensors = inputs.after(own, action, inplace) + tensors
        return distribution.to_env(action), tensors

    def network_input(
        self,
        obs: Observation,
        tensors: StateTensors,
        reset: Tensor | None,
        auxiliary: AuxiliaryValues,
    ) -> tuple[Observation, StateTensors, StateTensors]:
        """Return what the network reads, and the state of the auxiliary inputs and of the memories.

        Arguments are those of `step`.
        """
        inputs, x = self.auxiliary, self.normalizer(obs)
        if not inputs.is_active:
            return x, (), tensors
        count = len(inputs.state_shapes)
        own, tensors = tensors[:count], tensors[count:]
        return inputs.join(x, own, reset, *auxiliary), own, tensors

    def update_statistics(self, raw: Any, reward: Tensor, valid: Tensor | None) -> None:
        """Merge a rollout into the running statistics.

        Args:
            raw: `Rollout.raw_observation`.
            reward: `[B, T]`, as the environment gave it.
            valid: `[B, T]`, false at autoreset steps, which do not count; None: all count.
        """
        self.normalizer.update(raw.flatten(0, 1) if valid is None else raw[valid])
        self.auxiliary.update(reward.flatten() if valid is None else reward[valid])

    def pack_state(self, tensors: StateTensors, batch_size: int, critic: bool = True) -> TensorDict:
        """Return bare state tensors as a TensorDict with one entry per memory.

        Args:
            tensors: of the auxiliary inputs, then of the memories in their order, batch first.
            batch_size: number of environments B.
            critic: whether the tensors of a separate critic's memory are among them.
        """
        packed, at = {}, len(self.auxiliary.state_shapes)
        if at:
            names = self.auxiliary.state_shapes
            own = dict(zip(names, tensors[:at], strict=True))
            packed["previous"] = TensorDict(own, batch_size=(batch_size,))
        for name, memory in self.network.memories(critic).items():
            size = len(memory.state_keys)
            packed[name] = memory.pack_state(tensors[at : at + size], batch_size)
            at += size
        return TensorDict(packed, batch_size=(batch_size,))

    def unpack_state(self, state: TensorDict, batch_size: int) -> StateTensors:
        """Return a state's bare tensors, checked, on the policy's device and in its dtype.

        The entry of a separate critic's memory may be missing; the result then lacks it too.
        A state of version 0.1 is taken as well.

        Raises:
            ValueError: the state belongs to another policy or to another batch size.
        """
        state = with_todays_names(state)
        found = sorted(map(str, state.keys()))
        memories = self.network.memories(critic=CRITIC_MEMORY in found)
        expected = sorted([*memories, *(["previous"] if self.auxiliary.state_shapes else [])])
        if found != expected:
            raise ValueError(
                f"state holds {found}, this policy's memories are {expected}: pass the "
                "state that this policy handed back, or None for a fresh one"
            )
        if tuple(state.batch_size) != (batch_size,):
            raise ValueError(
                f"state has batch size {list(state.batch_size)}, the observations have "
                f"[{batch_size}]: pass one state row per environment, or None for a fresh one"
            )
        tensors: StateTensors = tuple(
            state["previous", name] for name in self.auxiliary.state_shapes
        )
        for name, memory in memories.items():
            tensors += memory.unpack_state(state[name])
        return self.place_tensors(tensors)

    def place_tensors(self, tensors: StateTensors) -> StateTensors:
        """Return state tensors where the weights are, in their dtype.

        Float32 stays where the weights are halves: memories may keep their state in it.
        """
        weight = self.any_weight
        device, dtype = weight.device, weight.dtype
        if dtype in (torch.float16, torch.bfloat16):
            return tuple(x.to(device, dtype if x.dtype == torch.float64 else None) for x in tensors)
        return tuple(tensor.to(device, dtype) for tensor in tensors)

    def read_reset(self, reset: Any, batch_size: int) -> Tensor | None:
        """Return flags `[B]`, wherever they were, from one bool or B of them (or uint8 of 0 and 1).

        None stands for none set. It is looked for on the CPU alone, where a step without resets
        is the cheaper one; flags on a GPU are taken as they are, for a look would wait for it.

        Raises:
            ValueError: a shape or a dtype that does not fit.
        """
        if reset is None or reset is False:
            return None
        flags = as_tensor(reset, "reset")
        if flags.dtype == torch.uint8 and (flags.device.type != "cpu" or not (flags > 1).any()):
            flags = flags != 0  # as flags were before there were bools
        if flags.dtype != torch.bool or tuple(flags.shape) not in ((), (batch_size,)):
            raise ValueError(
                f"reset has shape {list(flags.shape)} and dtype {flags.dtype}, expected a bool or "
                f"bools [{batch_size}]: true where obs is the first of an episode"
            )
        if flags.device.type == "cpu" and not bool(flags.any()):
            return None
        return flags.expand(batch_size)


def with_todays_names(state: TensorDict) -> TensorDict:
    """Return a state with the memories' names of today: version 0.1 had others."""
    old = [name for name in RENAMED_MEMORIES if name in state]
    if old:
        state = state.copy()  # the caller's own keeps its names
    for name in old:
        state.rename_key_(name, RENAMED_MEMORIES[name])
    return state
