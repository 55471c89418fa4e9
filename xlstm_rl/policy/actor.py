"""A policy that keeps its memory state between calls."""

import copyreg
from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import map_leaves, row_of
from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.options.arguments import check_whole
from xlstm_rl.policy.actions.mask import batch_of_one
from xlstm_rl.policy.arrays import to_numpy
from xlstm_rl.policy.auxiliary.reader import AuxiliaryValues, is_set
from xlstm_rl.policy.encoders.observations import map_observation
from xlstm_rl.policy.native_step import overwriting_pays
from xlstm_rl.policy.policy_module import PolicyModule


def _let_states_be_loaded() -> None:
    """Let `torch.load(weights_only=True)` read a TensorDict of tensors.

    It is data: what rebuilds one makes an empty object and fills in tensors, sizes and names.
    """
    reduce: Any = copyreg.dispatch_table.get(TensorDict)
    if reduce is not None:
        torch.serialization.add_safe_globals([TensorDict, reduce(TensorDict({}))[0]])


_let_states_be_loaded()


class Actor:
    """A policy with its memory state, for loops that would rather not carry the state.

    `action = actor(obs, reset=True)` at the first observation of an episode, `actor(obs)` after.
    It carries the actor's memory alone, for no action depends on a separate critic's.
    """

    def __init__(self, policy: PolicyModule, num_envs: int | None, deterministic: bool) -> None:
        if num_envs is not None:
            num_envs = check_whole("num_envs", num_envs, 1)
        self.policy = policy
        self.num_envs = num_envs
        self.deterministic = deterministic
        self._batch_size = num_envs or 1
        self._tensors: StateTensors = ()
        self._lead = () if num_envs is None else (num_envs,)
        self.state = policy.initial_state(self._batch_size, critic=False)
        self._fresh = True

    def __repr__(self) -> str:
        """One line: for how many environments, how it chooses, and with which memory."""
        count = "one environment" if self.num_envs is None else f"num_envs={self.num_envs}"
        choice = "most probable actions" if self.deterministic else "sampled actions"
        memory, device = self.policy.memory_config, self.policy.device
        return f"{type(self).__name__}({count}, {choice}, {memory} on {device})"

    @property
    def state(self) -> TensorDict:
        """A copy of the memory state, batch size `[num_envs]`; assign one to go on from there.

        `torch.save` writes it, `torch.load(weights_only=True)` reads it. Assigned is also the plain
        dict of `state.to_dict()`.
        """
        tensors = tuple(tensor.clone() for tensor in self._tensors)
        return self.policy.pack_state(tensors, self._batch_size, critic=False)

    @state.setter
    def state(self, state: TensorDict | Mapping[str, Any]) -> None:
        if isinstance(state, dict):
            state = TensorDict(state, batch_size=(self._batch_size,))
        tensors = self.policy.unpack_state(state, self._batch_size)
        # tensors made in inference mode could not be overwritten outside of it
        with torch.inference_mode(False), torch.no_grad():
            policy = self.policy
            count = len(policy.auxiliary.state_shapes) + len(policy.network.trunk.memory.state_keys)
            self._store(tensors[:count])
        self._fresh = False

    def __call__(
        self, obs: Any, reset: Any = None, reward: Any = None, action_mask: Any = None
    ) -> Any:
        """Return the action for an observation, and remember.

        Args:
            obs: `[*observation_shape]`, or `[num_envs, *observation_shape]` for a vector
                environment; dicts and tuples of them where the space is a Dict or Tuple.
            reset: true where `obs` is the first of an episode (`[num_envs]` or one bool).
            reward: as for `Policy.act`; without a batch axis for one environment.
            action_mask: as for `Policy.act`; likewise.

        Returns:
            The action or actions, of the same kind (NumPy or torch) as `obs`.

        Raises:
            ValueError: as for `Policy.act`, or a shape does not fit the number of environments.
        """
        made_for = f"{self.num_envs} environments" if self.num_envs else "one, unbatched"
        raw, _, is_tensor = self.policy.reader.read(
            obs,
            self._lead,
            f"this actor is for {made_for}; policy.actor(num_envs=...) makes one for another "
            "number",
        )
        if not self.num_envs:
            raw = map_observation(lambda one: one.unsqueeze(0), raw)
        flags = self.policy.read_reset(reset, self._batch_size)
        if action_mask is not None and not self.num_envs:
            action_mask = batch_of_one(action_mask)
        fresh = self._fresh or is_set(flags)
        self._follow_policy()
        auxiliary = self.policy.auxiliary_reader.read(
            raw, self._batch_size, reward, action_mask, fresh, self._placed[0]
        )
        actions = self._hand_out(self._step(raw, flags, auxiliary), is_tensor)
        self._fresh = False
        # Gymnasium's Discrete spaces accept NumPy integers, so no further conversion is needed.
        if self.num_envs:
            return actions
        return map_leaves(lambda one: one[0], actions) if is_tensor else row_of(actions, 0)

    def _store(self, tensors: StateTensors) -> None:
        """Take over a state that may go on living elsewhere."""
        self._tensors = tuple(tensor.clone() for tensor in tensors)
        self._placed = self._place()

    def _place(self) -> tuple[torch.device, torch.dtype]:
        weight = self.policy.any_weight
        return weight.device, weight.dtype

    def _follow_policy(self) -> None:
        """Take the state to where the policy is, should it have been moved or cast."""
        placed = self._place()
        if placed != self._placed:
            self._tensors, self._placed = self.policy.place_tensors(self._tensors), placed

    def _step(self, obs: Observation, reset: Tensor | None, auxiliary: AuxiliaryValues) -> Any:
        """Return the actions `[B, ...]` for observations `[B, ...]` from anywhere."""
        device, dtype = self._placed
        action, self._tensors = self.policy.step(
            map_observation(lambda one: one.to(device), obs),
            self._tensors,
            None if reset is None else reset.to(device),
            self.deterministic,
            inplace=overwriting_pays(self.policy.network.trunk.memory, device, dtype),
            auxiliary=auxiliary,
        )
        return action

    def _hand_out(self, action: Any, as_tensor: bool) -> Any:
        return action if as_tensor else to_numpy(action)
