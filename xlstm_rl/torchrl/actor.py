"""A trained policy as an actor in TorchRL's environments."""

from typing import Any

import torch
from gymnasium import spaces
from tensordict import NestedKey, TensorDictBase, unravel_key
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.data import Unbounded
from torchrl.envs.transforms import Compose, TensorDictPrimer, Transform
from torchrl.envs.utils import ExplorationType, exploration_type

from xlstm_rl.envs.spaces.leaves import Leaf, build, is_nested
from xlstm_rl.policy.auxiliary.reader import is_set
from xlstm_rl.policy.encoders.observations import map_observation
from xlstm_rl.policy.policy_module import PolicyModule
from xlstm_rl.torchrl.encodings import decode_observation, encode_action, one_hot_shape
from xlstm_rl.torchrl.entries import find_tensor, read_is_init, read_state
from xlstm_rl.torchrl.keys import check_distinct, check_flag, check_key
from xlstm_rl.torchrl.state import StateLayout, state_dtype
from xlstm_rl.torchrl.transforms import PREVIOUS_REWARD, PreviousReward

ACTION, ACTION_MASK = "action", "action_mask"
"""The keys of what is done, and of the mask of a policy with `policy.action_mask: info`."""


class PolicyActor(TensorDictModuleBase):  # type: ignore[misc]
    """Acts in environments of TorchRL with a policy, whose weights and normaliser it shares.

    It reads observations, state and `is_init`, and what else the policy needs: `"action_mask"`,
    `"previous_reward"`. It writes `"action"` and `("next", state)`. Each entry of a batch
    `[*batch]` is one step, in recurrent mode too; nothing has gradients. TorchRL finds its primer
    as it finds those of recurrent modules.

    Args:
        policy: the policy.
        deterministic: takes the most probable action, or samples; None: what
            `torchrl.envs.set_exploration_type` says.
        categorical_action_encoding: as of the `GymEnv`: choices are indices, not one-hot.
        state_key: the key of the state, one vector `[*batch, S]`.
        init_key: the key of the mark of episode starts.

    Raises:
        ValueError: the action space is a Dict or Tuple, or a key stands for two things.
        TypeError: a key is no key, or a flag is neither True nor False.
    """

    def __init__(
        self,
        policy: PolicyModule,
        deterministic: bool | None = None,
        categorical_action_encoding: bool = False,
        state_key: NestedKey = "recurrent_state",
        init_key: NestedKey = "is_init",
    ) -> None:
        if is_nested(policy.action_space):
            raise ValueError(
                f"the action space is {policy.action_space}, expected one without parts: Box, "
                "Discrete, MultiDiscrete or MultiBinary; act with policy.act instead"
            )
        super().__init__()
        self.policy = policy
        if deterministic is not None:
            check_flag("deterministic", deterministic, "True, False or None")
        self.deterministic = deterministic
        self.categorical = check_flag("categorical_action_encoding", categorical_action_encoding)
        action = policy.action_space
        counts = action.nvec if isinstance(action, spaces.MultiDiscrete) else None
        if counts is not None and not self.categorical and one_hot_shape(counts) is None:
            raise ValueError(
                f"the action space is {action}, a table of different counts, which TorchRL has as "
                "indices alone: pass categorical_action_encoding=True, to the GymEnv too"
            )
        self.state_key = check_key(f"state_key={state_key!r}", state_key)
        self.init_key = check_key(f"init_key={init_key!r}", init_key)
        own = policy.initial_tensors(1, critic=False)
        self.layout = StateLayout([tuple(tensor.shape[1:]) for tensor in own])
        self._leaves = policy.reader.leaves
        self._keys = [_observation_key(leaf) for leaf in self._leaves]
        self._reads_mask = policy.policy_config.action_mask == "info"
        self._reads_reward = policy.auxiliary.reads_reward
        self.in_keys = [*self._keys, self.state_key, self.init_key]
        self.in_keys += [ACTION_MASK] * self._reads_mask + [PREVIOUS_REWARD] * self._reads_reward
        check_distinct("the keys that the actor reads and writes", [*self.in_keys, ACTION])
        self._after: NestedKey = unravel_key(("next", self.state_key))
        self.out_keys = [ACTION, self._after]

    def make_tensordict_primer(self) -> Transform:
        """Return the transform that gives an environment what this actor carries."""
        dtype = state_dtype(self.policy.any_weight)
        spec = Unbounded(shape=(self.layout.size,), dtype=dtype)
        primer = TensorDictPrimer({self.state_key: spec}, expand_specs=True)
        return Compose(primer, PreviousReward()) if self._reads_reward else primer

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Act one step in each entry of a batch and write the action into it.

        Raises:
            KeyError: the state, the mark of episode starts, or a part of the observation is
                missing.
            ValueError: a shape or a dtype does not fit the policy.
        """
        shape = tensordict.batch_size
        size, policy, device = shape.numel(), self.policy, self.policy.device
        state = read_state(tensordict, self.state_key, self.layout.size)
        flags = policy.read_reset(read_is_init(tensordict, self.init_key).reshape(size), size)
        raw, _, _ = policy.reader.read(
            self._observation(tensordict, size), (size,), "does the environment have other spaces?"
        )
        mask = self._find(tensordict, ACTION_MASK) if self._reads_mask else None
        reward = self._find(tensordict, PREVIOUS_REWARD) if self._reads_reward else None
        if reward is not None and reward.shape not in (shape, (*shape, 1)):
            raise ValueError(
                f"{PREVIOUS_REWARD!r} has shape {list(reward.shape)}, expected {[*shape, 1]} or "
                f"{[*shape]}: one reward for each environment"
            )
        auxiliary = policy.auxiliary_reader.read(
            raw,
            size,
            None if reward is None else reward.reshape(size),
            None if mask is None else mask.reshape(size, *mask.shape[len(shape) :]),
            is_set(flags),
            device,
        )
        packed = state.reshape(size, self.layout.size)
        action, tensors = policy.step(
            map_observation(lambda one: one.to(device), raw),
            self.layout.unpack(packed.to(device), policy.any_weight),
            None if flags is None else flags.to(device),
            self._is_deterministic(),
            auxiliary=auxiliary,
        )
        encoded = encode_action(policy.action_space, action, self.categorical).to(state.device)
        after = self.layout.pack(tensors, packed).to(state.device)
        tensordict.set(ACTION, encoded.reshape(*shape, *encoded.shape[1:]))
        tensordict.set(self._after, after.reshape(*shape, self.layout.size))
        return tensordict

    def _is_deterministic(self) -> bool:
        if self.deterministic is not None:
            return self.deterministic
        return exploration_type() is not ExplorationType.RANDOM

    def _observation(self, tensordict: TensorDictBase, size: int) -> Any:
        found = []
        for leaf, key in zip(self._leaves, self._keys, strict=True):
            value = self._find(tensordict, key)
            value = value.reshape(size, *value.shape[tensordict.batch_dims :])
            found.append(decode_observation(leaf.space, value))
        if not self.policy.reader.is_nested:
            return found[0]
        return build(self.policy.observation_space, iter(found))

    def _find(self, tensordict: TensorDictBase, key: NestedKey) -> Tensor:
        value = find_tensor(tensordict, key)
        if value is None:
            remedy = _REMEDIES.get(str(key))
            if remedy is None:
                remedy = (
                    f"the policy reads {self._keys}, found {sorted(map(str, tensordict.keys()))}; "
                    "does the environment have other spaces?"
                )
            raise KeyError(f"{key!r} is missing: {remedy}")
        return value


_REMEDIES = {
    ACTION_MASK: "let the environment report it, for a GymEnv by "
    "env.set_info_dict_reader(default_info_dict_reader(['action_mask']))",
    PREVIOUS_REWARD: "append actor.make_tensordict_primer() to the environment",
}


def _observation_key(leaf: Leaf) -> NestedKey:
    """Return the key under which `GymEnv` has a leaf; it calls `state` an observation."""
    path = tuple(str(part) for part in leaf.path)
    if not path or path == ("state",):
        return "observation"
    return unravel_key(path)
