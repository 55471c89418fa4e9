"""What a policy reads beside the observation: the step before, and which actions are allowed.

These inputs travel in one mapping with the observation, so that a rollout stores them and training
reads what acting read.
"""

import torch
from torch import Tensor

from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import (
    NormalizationConfig,
    Observation,
    RunningMoments,
    refresh_after_loading,
)
from xlstm_rl.policy.actions.base import ActionDistribution
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.precision import KeepsPrecision

OBSERVATION = "observation"
"""The key of an observation that has no parts, beside the others."""

PREVIOUS_ACTION, PREVIOUS_REWARD, FIRST_STEP = "~previous_action", "~previous_reward", "~first_step"
ACTION_MASK = "~action_mask"
"""Keys that no leaf of a space should have."""

_EPSILON = 1e-8


class AuxiliaryInputs(KeepsPrecision):
    """The inputs that come from the step before, as in Duan et al. 2016 (arXiv:1611.02779).

    At the first step of an episode the previous action and reward are zeros and the flag is one.
    The previous action is what `ActionDistribution.features` makes of it. Rewards are divided by
    the running root of their mean square, without a shift, so that zero stays zero.

    The state that acting carries for it: the features of the last action `[B, F]`, and whether
    there was one `[B, 1]`; all zeros before an episode, like the state of a memory.

    Args:
        distribution: of the actions.
        policy: which inputs there are.
        normalization: whether rewards are scaled, and where they are clipped.
    """

    scale: Tensor

    def __init__(
        self,
        distribution: ActionDistribution,
        policy: PolicyConfig,
        normalization: NormalizationConfig,
    ) -> None:
        super().__init__()
        self._features = distribution.features
        self._write_features = distribution.write_features
        self.sizes = auxiliary_sizes(distribution, policy)
        self.reads_reward = policy.previous_reward
        self.reads_mask = policy.action_mask != "none"
        self.is_active = bool(self.sizes) or self.reads_mask
        self.reads_action_alone = [*self.sizes] == [PREVIOUS_ACTION] and not self.reads_mask
        self.state_shapes: dict[str, tuple[int, ...]] = {}
        if PREVIOUS_ACTION in self.sizes:
            self.state_shapes["action"] = (distribution.num_features,)
        if self.sizes:
            self.state_shapes["started"] = (1,)
        self.clip = normalization.clip_reward
        scaled = policy.previous_reward and normalization.reward
        self.moments = RunningMoments(1) if scaled else None
        self.register_buffer("scale", torch.ones(1, dtype=torch.float64), persistent=False)
        self.register_load_state_dict_post_hook(refresh_after_loading)  # type: ignore[no-untyped-call]

    def initial_tensors(self, batch_size: int, device: torch.device | None = None) -> StateTensors:
        """Return the state before an episode: zeros."""
        shapes, dtype = self.state_shapes.values(), self.cast_like.dtype
        return tuple(torch.zeros(batch_size, *s, dtype=dtype, device=device) for s in shapes)

    def join(
        self,
        observation: Observation,
        tensors: StateTensors,
        reset: Tensor | None,
        reward: Tensor | None,
        mask: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return the network's input: the observation and all that stands beside it.

        Args:
            observation: `[B, ...]`, normalised.
            tensors: their state.
            reset: `[B]`, true where the step is the first of an episode; None: nowhere.
            reward: `[B]`, what the last action was paid; None: zeros.
            mask: `[B, num_outputs]`, true where an output may be taken; None: everywhere.
        """
        joined = {OBSERVATION: observation} if isinstance(observation, Tensor) else {**observation}
        if self.state_shapes:
            first = tensors[-1] == 0
            if reset is not None:
                first = first | reset.unsqueeze(-1)
            if PREVIOUS_ACTION in self.sizes:
                joined[PREVIOUS_ACTION] = tensors[0].masked_fill(first, 0.0)
            if PREVIOUS_REWARD in self.sizes:
                joined[PREVIOUS_REWARD] = self._reward(reward, first)
            if FIRST_STEP in self.sizes:
                joined[FIRST_STEP] = first.to(self.cast_like.dtype)
        if mask is not None:
            joined[ACTION_MASK] = mask
        return joined

    def _reward(self, reward: Tensor | None, first: Tensor) -> Tensor:
        dtype = self.cast_like.dtype
        if reward is None:
            return torch.zeros_like(first, dtype=dtype)
        scaled = reward.unsqueeze(-1) * self.scale
        return scaled.clamp(-self.clip, self.clip).to(dtype).masked_fill(first, 0.0)

    def after(self, tensors: StateTensors, action: Tensor, inplace: bool = False) -> StateTensors:
        """Return the state after actions `[B, ...]` in the policy's units."""
        if not self.state_shapes:
            return tensors
        reads_action = PREVIOUS_ACTION in self.sizes
        if inplace:
            if reads_action:
                self._write_features(action, tensors[0])
            tensors[-1].fill_(1.0)
            return tensors
        own = (self._features(action).to(self.cast_like.dtype),) if reads_action else ()
        return (*own, torch.ones_like(tensors[-1]))

    def update(self, reward: Tensor) -> None:
        """Merge rewards `[N]` into the statistics."""
        if self.moments is not None:
            self.moments.update(reward.unsqueeze(-1))
            self.refresh()

    def refresh(self) -> None:
        """Derive the factor of rewards from the statistics."""
        if self.moments is not None:
            square = self.moments.var + self.moments.mean.square()
            self.scale.copy_((square + _EPSILON).rsqrt())


def auxiliary_sizes(distribution: ActionDistribution, policy: PolicyConfig) -> dict[str, int]:
    """Return the names and lengths of the vectors that stand beside the observation."""
    sizes = {}
    if policy.previous_action is True:  # `auto` without an environment: no
        sizes[PREVIOUS_ACTION] = distribution.num_features
    if policy.previous_reward:
        sizes[PREVIOUS_REWARD] = 1
    if policy.first_step:
        sizes[FIRST_STEP] = 1
    return sizes
