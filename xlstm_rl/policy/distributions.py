"""Action distributions on bare tensors.

`torch.distributions` costs several hundred microseconds a step in validation and object
construction. Here a distribution holds nothing but constants, and its parameters are one tensor
`[..., num_params]`, so that the same code serves a step `[B]` and a rollout `[B, T]`. It is a
module so that its constants are where the weights are: to copy them at each step would stall a GPU.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


class ActionDistribution(nn.Module, ABC):
    """A family of distributions over one action space."""

    num_params: int
    """Length of the last axis of the parameters."""

    action_shape: tuple[int, ...]
    """Shape of one action in the policy's own units."""

    action_dtype: torch.dtype
    """Type of an action in the policy's own units."""

    @abstractmethod
    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw actions `[..., *action_shape]` from parameters `[..., num_params]`."""

    @abstractmethod
    def mode(self, params: Tensor) -> Tensor:
        """Return the most probable actions `[..., *action_shape]`."""

    @abstractmethod
    def log_prob_and_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy, in nats, each `[...]`."""

    @abstractmethod
    def to_env(self, action: Tensor) -> Tensor:
        """Turn actions in the policy's units into actions of the environment's space."""


class Categorical(ActionDistribution):
    """One of `n` choices; the parameters are logits `[..., n]`."""

    action_shape = ()
    action_dtype = torch.int64

    def __init__(self, n: int, start: int = 0) -> None:
        super().__init__()
        self.num_params = n
        self.start = start

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw actions `[...]` by the exponential race: argmax of p / Exp(1) has law p."""
        race = torch.empty_like(params).exponential_(generator=generator)
        return (params - race.log_()).argmax(-1)

    def mode(self, params: Tensor) -> Tensor:
        """Return the choices `[...]` with the largest logit."""
        return params.argmax(-1)

    def log_prob_and_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy of choices `[...]`."""
        log_p = params.log_softmax(-1)
        log_prob = log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return log_prob, -(log_p.exp() * log_p).sum(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """Shift choices to the first element of the environment's space."""
        return action + self.start if self.start else action


class DiagonalGaussian(ActionDistribution):
    """Independent normals; the parameters are means and log standard deviations `[..., 2A]`.

    The policy's unit is half the range of a bounded action: -1 and 1 are the bounds. An action
    beyond a bound is clipped on its way to the environment, and its log-probability is that of
    the unclipped sample, so the ratio of PPO stays exact.
    """

    action_dtype = torch.float32
    low: Tensor
    high: Tensor
    center: Tensor
    scale: Tensor

    def __init__(self, low: NDArray[Any], high: NDArray[Any]) -> None:
        super().__init__()
        bounded = np.isfinite(low) & np.isfinite(high)
        with np.errstate(over="ignore", invalid="ignore"):
            center = np.where(bounded, (low + high) / 2, 0.0)
            scale = np.where(bounded, (high - low) / 2, 1.0)
        self.num_params = 2 * low.size
        self.action_shape = low.shape
        for name, value in (("low", low), ("high", high), ("center", center), ("scale", scale)):
            constant = torch.tensor(value, dtype=torch.float32)
            self.register_buffer(name, constant, persistent=False)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw actions `[..., A]`."""
        mean, log_std = params.chunk(2, -1)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return torch.addcmul(mean, noise, log_std.exp())

    def mode(self, params: Tensor) -> Tensor:
        """Return the means `[..., A]`."""
        return params.chunk(2, -1)[0]

    def log_prob_and_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-density and entropy, summed over the axes of an action."""
        mean, log_std = params.chunk(2, -1)
        z = (action - mean) * (-log_std).exp()
        log_prob = (-0.5 * z.square() - log_std - _LOG_SQRT_2PI).sum(-1)
        return log_prob, (log_std + (0.5 + _LOG_SQRT_2PI)).sum(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """Scale actions `[..., A]` to the environment's range and clip them to its bounds."""
        return torch.addcmul(self.center, action, self.scale).clamp(self.low, self.high)


def make_distribution(space: gymnasium.Space[Any]) -> ActionDistribution:
    """Return the distribution family for an action space.

    Raises:
        ValueError: the space is neither Discrete nor a one-dimensional Box.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return Categorical(int(space.n), int(space.start))
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return DiagonalGaussian(space.low, space.high)
    raise ValueError(f"action space {space}: expected Discrete, or Box with one axis")
