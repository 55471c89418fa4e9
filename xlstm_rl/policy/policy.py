"""A policy that acts: a batch of observations in, actions out, the memory state in and out."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from tensordict import NestedKey, TensorDict

from xlstm_rl.policy.actor import Actor
from xlstm_rl.policy.actor_critic import CRITIC_MEMORY
from xlstm_rl.policy.arrays import to_numpy
from xlstm_rl.policy.auxiliary.reader import is_set
from xlstm_rl.policy.encoders.observations import map_observation
from xlstm_rl.policy.graph_actor import GraphActor
from xlstm_rl.policy.policy_module import with_todays_names
from xlstm_rl.policy.queries import PolicyQueries

if TYPE_CHECKING:
    from tensordict.nn import TensorDictModuleBase


class Policy(PolicyQueries):
    """Acts one step at a time: observation and memory state in, action and memory state out.

    Its arguments are those of `PolicyModule`.
    """

    def act(
        self,
        obs: Any,
        state: TensorDict | None = None,
        reset: Any = None,
        deterministic: bool = True,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        reward: Any = None,
        action_mask: Any = None,
    ) -> tuple[Any, TensorDict]:
        """Choose actions for a batch of B environments.

        Args:
            obs: raw observations `[B, *observation_shape]`: tensors, or arrays of any strides and
                byte order, lists, or what has `__array__`; dicts and tuples of them where the
                observation space is a Dict or Tuple.
            state: the memory state handed back by the step before; None: fresh, like
                `initial_state(B)`. The memories that it holds are those that are carried on: the
                critic's as well, unless it comes from `initial_state(B, critic=False)`.
            reset: `[B]` bool, true where `obs` is the first of an episode, or one bool for all;
                None: nowhere.
            deterministic: take the most probable action instead of a sample.
            generator: source of the samples; None: torch's default one. A sequence of B: one for
                each environment, whose samples then do not depend on what is beside it.
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
            ValueError: a shape or dtype does not fit the policy, what it needs is missing, a mask
                allows no action, or an observation that came as an array is not finite.
        """
        raw, batch_size, is_tensor = self.reader.read(
            obs, None, "act takes a batch; for one environment use policy.actor()"
        )
        if isinstance(generator, Sequence) and len(generator) != batch_size:
            raise ValueError(
                f"{len(generator)} generators came for {batch_size} environments: pass one, or one "
                "for each environment"
            )
        device = self.device
        if state is None:
            tensors = self.initial_tensors(batch_size, device)
        else:
            state = with_todays_names(state)
            tensors = self.unpack_state(state, batch_size)
        flags = self.read_reset(reset, batch_size)
        fresh = state is None or is_set(flags)
        auxiliary = self.auxiliary_reader.read(raw, batch_size, reward, action_mask, fresh, device)
        action, tensors = self.step(
            map_observation(lambda one: one.to(device), raw),
            tensors,
            None if flags is None else flags.to(device),
            deterministic,
            generator,
            auxiliary=auxiliary,
        )
        critic = state is None or CRITIC_MEMORY in state
        after = self.pack_state(tensors, batch_size, critic)
        return (action if is_tensor else to_numpy(action)), after

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

    def as_tensordict_module(
        self,
        deterministic: bool | None = None,
        categorical_action_encoding: bool = False,
        state_key: NestedKey = "recurrent_state",
        init_key: NestedKey = "is_init",
    ) -> "TensorDictModuleBase":
        """Return an actor for environments of TorchRL, which shares this policy's weights.

        Args:
            deterministic: take the most probable action, or sample; None: what
                `torchrl.envs.set_exploration_type` says.
            categorical_action_encoding: as of the `GymEnv`: choices are indices, not one-hot.
            state_key: the key of the state, one vector `[*batch, S]`.
            init_key: the key of the mark of episode starts.

        Raises:
            ValueError: the action space is a Dict or Tuple.
        """
        # by name: TorchRL is slow to import, and its border stands above this room
        actor = import_module("xlstm_rl.torchrl.actor")
        module: TensorDictModuleBase = actor.PolicyActor(
            self, deterministic, categorical_action_encoding, state_key, init_key
        )
        return module
