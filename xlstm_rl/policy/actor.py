"""A policy that keeps its memory state between calls."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from xlstm_rl.policy.actor_critic import Leaves

if TYPE_CHECKING:
    from xlstm_rl.policy.policy import Policy


class Actor:
    """A policy with its memory state, for loops that would rather not carry the state.

    `action = actor(obs, reset=True)` at the first observation of an episode, `actor(obs)` after.
    It carries the actor's memory alone, for no action depends on a separate critic's.
    """

    def __init__(self, policy: "Policy", num_envs: int | None, deterministic: bool) -> None:
        if num_envs is not None and num_envs < 1:
            raise ValueError(f"num_envs={num_envs}: expected 1 or more, or None for one unbatched")
        self.policy = policy
        self.num_envs = num_envs
        self.deterministic = deterministic
        self._batch_size = num_envs or 1
        self._leaves: Leaves = ()
        self._obs_shape = tuple(policy.observation_space.shape or ())
        if num_envs is not None:
            self._obs_shape = (num_envs, *self._obs_shape)
        self.state = policy.initial_state(self._batch_size, critic=False)

    @property
    def state(self) -> TensorDict:
        """A copy of the memory state, batch size `[num_envs]`; assign one to go on from there."""
        leaves = tuple(leaf.clone() for leaf in self._leaves)
        return self.policy.pack_state(leaves, self._batch_size, critic=False)

    @state.setter
    def state(self, state: TensorDict) -> None:
        leaves = self.policy.unpack_state(state, self._batch_size)
        # tensors made in inference mode could not be overwritten outside of it
        with torch.inference_mode(False), torch.no_grad():
            self._store(leaves[: len(self.policy.network.actor.memory.state_keys)])

    def __call__(self, obs: Any, reset: Any = None) -> Any:
        """Return the action for an observation, and remember.

        Args:
            obs: `[*observation_shape]`, or `[num_envs, *observation_shape]` for a vector
                environment.
            reset: true where `obs` is the first of an episode (`[num_envs]` or one bool).

        Returns:
            The action or actions, of the same kind (NumPy or torch) as `obs`.

        Raises:
            ValueError: a shape does not fit the policy or the number of environments.
        """
        is_tensor = isinstance(obs, Tensor)
        raw = obs if is_tensor else torch.as_tensor(np.asarray(obs))
        if tuple(raw.shape) != self._obs_shape:
            made_for = f"{self.num_envs} environments" if self.num_envs else "one, unbatched"
            raise ValueError(
                f"obs has shape {list(raw.shape)}, expected {list(self._obs_shape)}: this actor is "
                f"for {made_for}; policy.actor(num_envs=...) makes one for another number"
            )
        flags = self.policy.read_reset(reset, self._batch_size)
        action = self._step(raw if self.num_envs else raw.unsqueeze(0), flags)
        actions = self._hand_out(action, is_tensor)
        # Gymnasium's Discrete spaces accept NumPy integers, so no further conversion is needed.
        return actions if self.num_envs else actions[0]

    def _store(self, leaves: Leaves) -> None:
        """Take over a state that may go on living elsewhere."""
        self._leaves = tuple(leaf.clone() for leaf in leaves)

    def _step(self, obs: Tensor, reset: Tensor | None) -> Tensor:
        """Return the actions `[B, ...]` for observations `[B, ...]` from anywhere."""
        device = self.policy.device
        leaves = self._leaves
        if leaves and leaves[0].device != device:  # the policy has moved
            leaves = tuple(leaf.to(device) for leaf in leaves)
        action, self._leaves = self.policy.choose(
            obs.to(device),
            leaves,
            None if reset is None else reset.to(device),
            self.deterministic,
            # there a kernel writes where it read; on a CPU it would be a copy more
            inplace=device.type == "cuda",
        )
        return action

    def _hand_out(self, action: Tensor, as_tensor: bool) -> Any:
        return action if as_tensor else action.cpu().numpy()
