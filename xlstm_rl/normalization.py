"""Running normalisation of observations and rewards.

Statistics stand still while a rollout is collected and are brought up to date between rollouts:
the policy that acts and the policy that trains then see the same numbers.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from xlstm_rl.envs.spaces.leaves import (
    exceeds_float32,
    is_nested,
    observation_kind,
    space_leaves,
)
from xlstm_rl.envs.spaces.support import describe_space
from xlstm_rl.normalization_config import NormalizationConfig as NormalizationConfig
from xlstm_rl.options.section import refuse_unused
from xlstm_rl.precision import KeepsPrecision

_EPSILON = 1e-8
_ROUNDING = 2.0**-48  # of a float64 mean over many batches, relative to it

Observation = Tensor | dict[str, Tensor]
"""Observations of a space without parts, or those of a Dict or Tuple space by the leaf's name."""


class RunningMoments(KeepsPrecision):
    """Mean and variance of a stream of vectors `[N, n]`, in float64.

    Batches are merged by the parallel formula of Chan, Golub and LeVeque (1979), which is exact:
    the order and the size of the batches do not matter beyond rounding.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("var", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.gather: Callable[[Tensor], list[Tensor]] | None = None
        """Exchanges a vector with other processes, whose batches are merged too."""

    @torch.no_grad()
    def update(self, batch: Tensor) -> None:
        """Merge vectors `[N, n]` into the statistics."""
        if self.gather is None:
            if batch.shape[0]:
                self._merge(*_moments(batch))
            return
        none = self.mean.new_zeros(1 + 2 * self.mean.numel())
        own = torch.cat(_moments(batch)) if batch.shape[0] else none
        for part in self.gather(own):
            if part[-1] > 0:
                mean, var = part[:-1].chunk(2)
                self._merge(mean, var, part[-1])

    @torch.no_grad()
    def merge(self, other: "RunningMoments") -> None:
        """Merge the statistics of another stream, as of another process."""
        if bool(other.count > 0):
            self._merge(other.mean, other.var, other.count)

    def _merge(self, mean: Tensor, var: Tensor, added: Tensor) -> None:
        total = self.count + added
        delta = mean - self.mean
        # Before the first batch the variance of 1 is a stand-in with no weight.
        squares = self.var * self.count + var * added
        self.var.copy_((squares + delta.square() * (self.count * added / total)) / total)
        self.mean += delta * (added / total)
        self.count.copy_(total.squeeze())


def _moments(batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, variance and number `[1]` of vectors `[N, n]`."""
    batch = batch.double()
    return batch.mean(0), batch.var(0, correction=0), batch.new_full((1,), float(batch.shape[0]))


def refresh_after_loading(module: Any, _: object) -> None:
    """Call `module.refresh()`: a hook that can be pickled, and that a copy calls on itself."""
    module.refresh()


class ObservationNormalizer(KeepsPrecision):
    """Turns observations of a space without parts into the network's input.

    Numbers (Box) become vectors `[..., n]`, shifted and scaled by running statistics. Where the
    space has a dtype that float32 cannot hold, such as float64 or int32, that is done in float64:
    only the result is rounded to the dtype of the weights. Images (Box of uint8 with two or three
    axes) stay as they are: the encoder scales them. Discrete ones become indices from 0 `[...]`,
    MultiDiscrete ones `[..., k]`, MultiBinary ones numbers `[..., n]`.
    """

    center: Tensor
    scale: Tensor
    starts: Tensor

    def __init__(self, space: gymnasium.Space[Any], config: NormalizationConfig) -> None:
        super().__init__()
        self.observation_shape = tuple(space.shape or ())
        self.kind = observation_kind(space)
        self.start: int | None = None
        if isinstance(space, gymnasium.spaces.Discrete):
            self.start = int(np.asarray(space.start).astype(np.int64))
        self.clip = config.clip_observation
        self.is_vector = self.kind == "vector"
        size = math.prod(self.observation_shape)
        normalized = config.observation and self.is_vector
        self.moments = RunningMoments(size) if normalized else None
        self.is_wide = self.is_vector and exceeds_float32(space)
        self.number_dtype = torch.float64 if self.is_wide else torch.float32
        # Copies derived from the moments: operations are saved at each step.
        copies = size if normalized else 0
        for name, value in (("center", 0.0), ("scale", 1.0)):
            buffer = torch.full((copies,), value, dtype=self.number_dtype)
            self.register_buffer(name, buffer, persistent=False)
        if isinstance(space, gymnasium.spaces.MultiDiscrete):
            starts = torch.from_numpy(np.asarray(space.start).astype(np.int64).ravel())
            self.register_buffer("starts", starts, persistent=False)
        self.register_load_state_dict_post_hook(refresh_after_loading)  # type: ignore[no-untyped-call]

    def flatten(self, observation: Tensor) -> Tensor:
        """Return raw observations `[..., *shape]` in the order of the network's input.

        Numbers are exact: in `number_dtype`, not yet in that of the weights.
        """
        if self.start is not None:
            return observation.long() - self.start
        if self.kind == "image":
            return observation
        batch = observation.shape[: observation.ndim - len(self.observation_shape)]
        size = math.prod(self.observation_shape)  # -1 could be any, of a batch of no rows
        if self.kind == "multi_discrete":
            return observation.long().reshape(*batch, size) - self.starts
        return observation.to(self.number_dtype).reshape(*batch, size)

    def normalize(self, flat: Tensor) -> Tensor:
        """Shift, scale and clip what `flatten` returned, in the dtype of the weights."""
        if self.moments is None:
            return flat.to(self.cast_like.dtype) if flat.is_floating_point() else flat
        # The mean goes first: a constant feature, however large, becomes 0 and not the rounding
        # of its multiple.
        out = (flat - self.center).mul_(self.scale).clamp_(-self.clip, self.clip)
        return out.to(self.cast_like.dtype)

    def forward(self, observation: Tensor) -> Tensor:
        """Return the network's input for raw observations `[..., *shape]`."""
        return self.normalize(self.flatten(observation))

    def numbers(self, flat: Tensor) -> Tensor:
        """Return the part of what `flatten` returned that may be infinite, and is normalised."""
        return flat if self.is_vector else flat.new_empty((flat.shape[0], 0))

    def update(self, numbers: Tensor) -> None:
        """Merge what `numbers` returned, `[N, n]`, into the statistics."""
        if self.moments is not None:
            self.moments.update(numbers)
            self.refresh()

    def refresh(self) -> None:
        """Derive the copies from the moments."""
        if self.moments is not None:
            mean, variance = self.moments.mean, self.moments.var + _EPSILON
            if self.is_wide:  # what a constant feature varies by is the rounding of its mean
                variance = variance + (mean * _ROUNDING).square()
            self.scale.copy_(variance.rsqrt())
            self.center.copy_(mean)


class NestedNormalizer(nn.Module):
    """An `ObservationNormalizer` for each leaf of a Dict or Tuple space, by the leaf's name.

    The calls are those of `ObservationNormalizer` on mappings from names to tensors; leaves that
    the policy does not read may be among them and are left out.

    Args:
        space: of one environment.
        config: what is normalised.
        without: a key of the space that is not observed, such as that of an action mask.
    """

    def __init__(
        self, space: gymnasium.Space[Any], config: NormalizationConfig, without: str | None = None
    ) -> None:
        super().__init__()
        leaves = space_leaves(space, without)
        self.names = [leaf.name for leaf in leaves]
        self.parts = nn.ModuleList(ObservationNormalizer(leaf.space, config) for leaf in leaves)
        self._parts = {
            leaf.name: part
            for leaf, part in zip(leaves, self.parts, strict=True)
            if isinstance(part, ObservationNormalizer)
        }

    def flatten(self, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return every leaf as the network reads it, not normalised."""
        return {name: part.flatten(observation[name]) for name, part in self._parts.items()}

    def normalize(self, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Normalise what `flatten` returned."""
        return {name: part.normalize(flat[name]) for name, part in self._parts.items()}

    def forward(self, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the network's input."""
        return self.normalize(self.flatten(observation))

    def numbers(self, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the leaves of what `flatten` returned that may be infinite."""
        return {name: flat[name] for name, part in self._parts.items() if part.is_vector}

    def update(self, numbers: Mapping[str, Tensor]) -> None:
        """Merge what `numbers` returned into the statistics."""
        for name, part in self._parts.items():
            if part.is_vector:
                part.update(numbers[name])


def make_normalizer(
    space: gymnasium.Space[Any], config: NormalizationConfig, without: str | None = None
) -> ObservationNormalizer | NestedNormalizer:
    """Return the normaliser of a space, nested or not; `without` as for `NestedNormalizer`.

    Raises:
        ValueError: A range is set for normalised numbers, and the space has no numbers.
    """
    if not any(observation_kind(leaf.space) == "vector" for leaf in space_leaves(space, without)):
        owner = f"observations of numbers, but the observation has none: {describe_space(space)}"
        refuse_unused(config, ("clip_observation",), owner)
    if is_nested(space):
        return NestedNormalizer(space, config, without)
    return ObservationNormalizer(space, config)


class RewardNormalizer(nn.Module):
    """Divides rewards by the running standard deviation of the discounted return.

    The mean is left alone: shifting rewards would change which policy is best. Part of the
    trainer's state, not of the policy's.
    """

    discounted_return: Tensor

    def __init__(self, num_envs: int, gamma: float, config: NormalizationConfig) -> None:
        super().__init__()
        self.gamma = gamma
        self.clip = config.clip_reward
        self.moments = RunningMoments(1)
        self.register_buffer("discounted_return", torch.zeros(num_envs, dtype=torch.float64))

    def returns_state(self) -> dict[str, Tensor]:
        """Return what belongs to the environments of this process in the state dict."""
        return {"discounted_return": self.discounted_return}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a state dict; open episodes of another number of environments are dropped."""
        name, own = "discounted_return", self.discounted_return
        fits = state[name].shape == own.shape
        self.load_state_dict(state if fits else {**state, name: own})

    def forward(self, reward: Tensor, reset: Tensor, valid: Tensor | None) -> Tensor:
        """Merge a rollout's rewards into the statistics and return them scaled.

        Args:
            reward: `[B, T]`.
            reset: `[B, T]`, true at the first step of an episode. The return of the episode before
                ends there, also where that episode was lost between two rollouts.
            valid: `[B, T]`, false at autoreset steps, which do not count; None: all count.
        """
        # in NumPy, whose operations on so few numbers take a tenth of torch's time
        carried, rewards, resets = self.discounted_return.numpy(), reward.numpy(), reset.numpy()
        found = np.empty(rewards.shape)
        for t in range(rewards.shape[1]):
            carried = np.where(resets[:, t], 0.0, carried) * self.gamma + rewards[:, t]
            found[:, t] = carried
        returns = torch.from_numpy(found)
        self.discounted_return.copy_(torch.from_numpy(carried))
        self.moments.update((returns.flatten() if valid is None else returns[valid]).unsqueeze(-1))
        scale = (self.moments.var + _EPSILON).rsqrt().to(reward.dtype)
        return (reward * scale).clamp(-self.clip, self.clip)
