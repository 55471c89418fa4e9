"""A policy: normaliser, network and the spaces that they were made for."""

from typing import Any

import gymnasium
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.spaces.leaves import map_leaves
from xlstm_rl.envs.spaces.support import check_supported_spaces
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig, Observation, make_normalizer
from xlstm_rl.policy.actions.mask import ActionMask
from xlstm_rl.policy.actor import Actor
from xlstm_rl.policy.actor_critic import ActorCritic, Leaves
from xlstm_rl.policy.auxiliary.inputs import Context
from xlstm_rl.policy.auxiliary.reader import Beside, BesideReader, check_mask_key, is_set
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.encoders.observations import ObservationReader, map_observation
from xlstm_rl.policy.graph_actor import GraphActor


class Policy(nn.Module):
    """Acts one step at a time: observation and memory state in, action and memory state out.

    Args:
        observation_space: of one environment; see `envs.check_supported_spaces`.
        action_space: of one environment; likewise.
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
        self.reader = ObservationReader(observation_space)
        check_mask_key(observation_space, policy.mask_in_observation)
        self.normalizer = make_normalizer(
            observation_space, normalization, policy.mask_in_observation
        )
        self.network = ActorCritic(observation_space, action_space, memory, policy)
        distribution = self.network.distribution
        self.context = Context(distribution, policy, normalization)
        self.beside = BesideReader(
            observation_space, ActionMask(action_space, distribution), self.context, policy
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def initial_state(self, batch_size: int, critic: bool = True) -> TensorDict:
        """Return the memory state of `batch_size` fresh episodes: all zeros.

        Args:
            batch_size: number of environments B.
            critic: with the state of the critic's memory, where it has its own. No action depends
                on it: acting from a state without it costs about half as much.
        """
        leaves = self.initial_leaves(batch_size, self.device, critic)
        return self.pack_state(leaves, batch_size, critic)

    def initial_leaves(
        self, batch_size: int, device: torch.device | None = None, critic: bool = True
    ) -> Leaves:
        """Return the bare tensors of `initial_state`."""
        own = self.context.initial_leaves(batch_size, device)
        return own + self.network.initial_leaves(batch_size, device, critic)

    def act(
        self,
        obs: Any,
        state: TensorDict | None = None,
        reset: Any = None,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
        reward: Any = None,
        action_mask: Any = None,
    ) -> tuple[Any, TensorDict]:
        """Choose actions for a batch of B environments.

        Args:
            obs: raw observations `[B, *observation_shape]`, NumPy or torch; dicts and tuples of
                them where the observation space is a Dict or Tuple.
            state: the memory state handed back by the step before; None: fresh, like
                `initial_state(B)`. The memories that it holds are those that are carried on: the
                critic's as well, unless it comes from `initial_state(B, critic=False)`.
            reset: `[B]` bool, true where `obs` is the first of an episode, or one bool for all;
                None: nowhere.
            deterministic: take the most probable action instead of a sample.
            generator: source of the samples; None: torch's default one.
            reward: `[B]`, what the environment answered to the action before; needed by a policy
                with `policy.previous_reward`, ignored by others and where an episode begins.
            action_mask: the masks of B environments, as a vector environment has them in `info`,
                or a bool tensor `[B, num_outputs]` with a flag for each output of the action head;
                needed by a policy with
                `policy.action_mask: info`.

        Returns:
            Actions `[B, *action_shape]` of the environment's action space, of the same kind
            (NumPy or torch) as `obs`, in dicts and tuples where it is a Dict or Tuple, and the
            memory state after the step.

        Raises:
            ValueError: a shape does not fit the policy, what it needs is missing, or a mask
                allows no action.
        """
        raw, batch_size, is_tensor = self.reader.read(
            obs, None, "act takes a batch; for one environment use policy.actor()"
        )
        device = self.device
        if state is None:
            leaves = self.initial_leaves(batch_size, device)
        else:
            leaves = self.unpack_state(state, batch_size)
        flags = self.read_reset(reset, batch_size)
        fresh = state is None or is_set(flags)
        beside = self.beside.read(raw, batch_size, reward, action_mask, fresh, device)
        action, leaves = self.choose(
            map_observation(lambda one: one.to(device), raw),
            leaves,
            None if flags is None else flags.to(device),
            deterministic,
            generator,
            beside=beside,
        )
        carried = ("actor", "critic") if state is None else tuple(state.keys())
        after = self.pack_state(leaves, batch_size, critic="critic" in carried)
        return (action if is_tensor else to_numpy(action)), after

    @torch.no_grad()
    def choose(
        self,
        obs: Observation,
        leaves: Leaves,
        reset: Tensor | None,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
        inplace: bool = False,
        beside: Beside = (None, None),
    ) -> tuple[Any, Leaves]:
        """Do what `act` does, on bare tensors that are where the policy is, unchecked.

        This is the step of `act` and of every actor. On a CUDA device nothing in it waits for the
        device, so that it can be captured in a CUDA graph.

        Args:
            obs: raw observations `[B, *observation_shape]`, by the leaf's name where the space is
                nested, as `reader.read` returns them.
            leaves: the state of the context and of the actor's memory, and if need be of the
                critic's behind it.
            reset: `[B]` bool, or None: nowhere.
            deterministic: take the most probable action instead of a sample.
            generator: source of the samples; None: torch's default one.
            inplace: overwrite the leaves and hand them back.
            beside: reward and flags of the action mask, as `BesideReader.read` returns them.

        Returns:
            Actions `[B, *action_shape]` of the environment's action space, and the state after.
        """
        context, distribution, x = self.context, self.network.distribution, self.normalizer(obs)
        own: Leaves = ()
        if context.is_active:
            count = len(context.state_shapes)
            own, leaves = leaves[:count], leaves[count:]
            x = context.join(x, own, reset, *beside)
        params, leaves = self.network.decide(x, leaves, reset, inplace)
        action = (
            distribution.mode(params) if deterministic else distribution.sample(params, generator)
        )
        if own:
            leaves = context.after(own, action, inplace) + leaves
        return distribution.to_env(action), leaves

    def update_statistics(self, raw: Any, reward: Tensor, live: Tensor | None) -> None:
        """Merge a rollout into the running statistics.

        Args:
            raw: `Rollout.raw_observation`.
            reward: `[B, T]`, as the environment gave it.
            live: `[B, T]`, false at dead autoreset steps, which do not count; None: all count.
        """
        self.normalizer.update(raw.flatten(0, 1) if live is None else raw[live])
        self.context.update(reward.flatten() if live is None else reward[live])

    def pack_state(self, leaves: Leaves, batch_size: int, critic: bool = True) -> TensorDict:
        """Return bare state tensors as a TensorDict with one entry per memory.

        Args:
            leaves: of the context, then of the memories in their order, batch first.
            batch_size: number of environments B.
            critic: whether the leaves of a separate critic's memory are among them.
        """
        packed, at = {}, len(self.context.state_shapes)
        if at:
            names = self.context.state_shapes
            own = dict(zip(names, leaves[:at], strict=True))
            packed["previous"] = TensorDict(own, batch_size=(batch_size,))
        for name, memory in self.network.memories(critic).items():
            size = len(memory.state_keys)
            packed[name] = memory.pack_state(leaves[at : at + size], batch_size)
            at += size
        return TensorDict(packed, batch_size=(batch_size,))

    def unpack_state(self, state: TensorDict, batch_size: int) -> Leaves:
        """Return a state's bare tensors, checked and on the policy's device.

        The entry of a separate critic's memory may be missing; the result then lacks it too.

        Raises:
            ValueError: the state belongs to another policy or to another batch size.
        """
        found = sorted(map(str, state.keys()))
        memories = self.network.memories(critic="critic" in found)
        expected = sorted([*memories, *(["previous"] if self.context.state_shapes else [])])
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
        leaves: Leaves = tuple(state["previous", name] for name in self.context.state_shapes)
        for name, memory in memories.items():
            leaves += memory.unpack_state(state[name])
        return tuple(leaf.to(self.device) for leaf in leaves)

    def read_reset(self, reset: Any, batch_size: int) -> Tensor | None:
        """Return flags `[B]`, wherever they were, from one bool or B of them.

        None stands for none set. It is looked for on the CPU alone, where a step without resets
        is the cheaper one; flags on a GPU are taken as they are, for a look would wait for it.

        Raises:
            ValueError: a shape or a dtype that does not fit.
        """
        if reset is None:
            return None
        flags = torch.as_tensor(reset)
        if flags.dtype != torch.bool or tuple(flags.shape) not in ((), (batch_size,)):
            raise ValueError(
                f"reset has shape {list(flags.shape)} and dtype {flags.dtype}, expected a bool or "
                f"bools [{batch_size}]: true where obs is the first of an episode"
            )
        if flags.device.type == "cpu" and not bool(flags.any()):
            return None
        return flags.expand(batch_size)

    def actor(
        self, num_envs: int | None = None, deterministic: bool = True, cuda_graph: bool = False
    ) -> Actor:
        """Return an actor that keeps the memory state between calls.

        Args:
            num_envs: None: one environment, observations and actions without a batch axis;
                otherwise the number of environments of a vector environment.
            deterministic: take the most probable action instead of a sample; samples come from
                torch's default generator.
            cuda_graph: capture the whole step in a CUDA graph, so that an action costs one
                launch; needs a policy on a CUDA device. See `GraphActor` for what it sees.

        Raises:
            ValueError: `num_envs` is below 1.
            RuntimeError: `cuda_graph` without a CUDA device.
        """
        return (GraphActor if cuda_graph else Actor)(self, num_envs, deterministic)


def to_numpy(action: Any) -> Any:
    """Return actions as NumPy, nested as they are; for a GPU the host waits."""
    if isinstance(action, Tensor):
        return action.cpu().numpy()
    return map_leaves(lambda one: one.cpu().numpy(), action)
