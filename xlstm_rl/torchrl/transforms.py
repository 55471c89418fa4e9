"""What TorchRL's environments do not carry from step to step, and a policy may read."""

import torch
from tensordict import TensorDictBase
from torchrl.data import Composite, Unbounded
from torchrl.envs.transforms import Transform

PREVIOUS_REWARD = "previous_reward"
"""The key of what the last action was paid."""


class PreviousReward(Transform):  # type: ignore[misc]
    """Shows the reward of the last step as `"previous_reward"`, 0 where an episode starts."""

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        reward = self.parent.reward_spec.zero()
        starts, before = tensordict.get("_reset", None), tensordict.get(PREVIOUS_REWARD, None)
        if starts is not None and before is not None:
            reward = torch.where(starts, reward, before)
        return tensordict_reset.set(PREVIOUS_REWARD, reward)

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        return next_tensordict.set(PREVIOUS_REWARD, next_tensordict.get("reward").clone())

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Add the key to the specification."""
        reward = self.parent.reward_spec
        shape, dtype, device = reward.shape, reward.dtype, reward.device
        observation_spec[PREVIOUS_REWARD] = Unbounded(shape=shape, dtype=dtype, device=device)
        return observation_spec
