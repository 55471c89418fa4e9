"""Distributions over vectors of numbers: independent normals, as they are or squashed."""

import math
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from xlstm_rl.kernels.native.gaussian import Spread, equations, number_terms
from xlstm_rl.policy.actions.base import ActionDistribution, torch_dtype
from xlstm_rl.policy.config import DistributionConfig, GaussianOptions

LOG_STD_RANGE = (-10.0, 3.0)  # of a network's outputs, which nothing else would hold
FREE_LOG_STD_RANGE = (-40.0, 40.0)  # beyond it densities and samples leave float32
_NODES = 32
_INSIDE = 1.0 - 2.0**-23  # the largest number that a tanh in float32 leaves finite
_INSIDE_OF_DOUBLE = 1.0 - 2.0**-52
_NO_BOUND = 1e18
"""Bounds from here on count as none: half of such a range is not a usable unit of action."""


class DiagonalGaussian(ActionDistribution):
    """Independent normals; the parameters are means and log standard deviations `[..., 2A]`.

    The policy's unit is half the range of a bounded action: -1 and 1 are the bounds. An action
    beyond a bound is clipped on its way to the environment, and its log-probability is that of
    the unclipped sample, so the ratio of PPO stays exact. An action without two bounds is in units
    of its own; with one, 0 is where the environment has its 0, or the bound if that is outside.

    Args:
        low: lower bounds, of any shape with A elements and in the dtype of the environment's
            actions. None is minus infinity, a number below -1e18, or one below half of the
            smallest number of the dtype.
        high: upper bounds; likewise.
        state_std: the network gives the log standard deviations, as an offset to
            `initial_log_std`; otherwise they are free parameters.
        initial_log_std: what they start from.
    """

    action_dtype = torch.float32
    low: Tensor
    high: Tensor
    center: Tensor
    scale: Tensor
    lower: Tensor
    upper: Tensor

    def __init__(
        self,
        low: NDArray[Any],
        high: NDArray[Any],
        state_std: bool = False,
        initial_log_std: float = 0.0,
    ) -> None:
        super().__init__()
        self.env_shape, self.env_dtype = low.shape, torch_dtype(low.dtype)
        self.num_params = 2 * low.size
        self.num_free = 0 if state_std else low.size
        self.num_features = low.size
        self.action_shape = (low.size,)
        self.state_std = state_std
        self.initial_log_std = initial_log_std
        bounds = _Bounds(low.ravel(), high.ravel())
        self.bounded = bounds.bounded
        # float32 would round the range of a float64 action, and float16 overflow in the product
        wide = self.env_dtype == torch.float64
        for name, value, dtype in (
            ("low", bounds.low, self.env_dtype),
            ("high", bounds.high, self.env_dtype),
            ("center", bounds.center, torch.float64 if wide else torch.float32),
            ("scale", bounds.scale, torch.float64 if wide else torch.float32),
            ("lower", bounds.lower, torch.float32),
            ("upper", bounds.upper, torch.float32),
        ):
            self.register_buffer(name, torch.tensor(value, dtype=dtype), persistent=False)

    @classmethod
    def for_space(
        cls, space: gymnasium.Space[Any], options: DistributionConfig
    ) -> ActionDistribution | None:
        """Return the distribution over a Box of floats, squashed where the options say so."""
        assert isinstance(options, GaussianOptions)
        if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
            return None
        family = SquashedGaussian if options.bounds == "tanh" else DiagonalGaussian
        made = family(space.low, space.high, options.std == "state", options.start_log_std)
        if options.std == "gsde":
            made.resample_steps = options.resample_steps
        return made

    @property
    def spread(self) -> Spread:
        """What is added to the log standard deviations, and between what they are held then."""
        if self.state_std:
            return self.initial_log_std, *LOG_STD_RANGE
        return 0.0, *FREE_LOG_STD_RANGE

    def initial_free(self) -> Tensor:
        """Return the log standard deviations at the start."""
        return torch.full((self.num_free,), self.initial_log_std)

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log standard deviations, each `[..., A]`."""
        mean, log_std = params.chunk(2, -1)
        shift, *limits = self.spread
        return mean, (log_std + shift if shift else log_std).clamp(*limits)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw actions `[..., A]`."""
        mean, log_std = self._split(params)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return torch.addcmul(mean, noise, log_std.exp())

    def mode(self, params: Tensor) -> Tensor:
        """Return the means `[..., A]`."""
        return params.chunk(2, -1)[0]

    def log_prob_and_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-density and entropy, summed over the axes of an action."""
        found = number_terms(params, action, self.spread)
        return equations(params, action, self.spread) if found is None else found

    def shown(self, params: Tensor) -> dict[str, Tensor]:
        """Return mean and standard deviation of each number; the latter before clip or tanh."""
        mean = self.to_env(self.mode(params)).flatten(params.ndim - 1).unbind(-1)
        std = (self._split(params)[1].exp() * self.scale).unbind(-1)
        found = {f"mean/{i}": one for i, one in enumerate(mean)}
        return found | {f"std/{i}": one for i, one in enumerate(std)}

    def decision(self, params: Tensor, action: Tensor) -> Tensor:
        """Return the means `[..., A]`, whatever was sampled."""
        return self._split(params)[0]

    def to_env(self, action: Tensor) -> Tensor:
        """Scale actions `[..., A]` to the environment's range and clip them to its bounds."""
        out = torch.addcmul(self.center, action, self.scale)
        if out.dtype != self.env_dtype:  # before it is clipped: a cast may round across a bound
            out = out.to(self.env_dtype)
        out = out.clamp(self.low, self.high)
        return out if len(self.env_shape) == 1 else out.reshape(*out.shape[:-1], *self.env_shape)

    def from_env(self, action: Tensor) -> Tensor:
        """Return actions `[..., *shape]` of the environment in the policy's units, `[..., A]`."""
        batch = action.shape[: action.ndim - len(self.env_shape)]
        flat = action.reshape(*batch, *self.action_shape)
        dtype = torch.promote_types(self.center.dtype, self.params_dtype)
        return ((flat.to(dtype) - self.center) / self.scale).to(self.params_dtype)

    def features(self, action: Tensor) -> Tensor:
        """Return actions `[..., A]` with those beyond a bound at the bound."""
        return action.clamp(self.lower, self.upper)


class SquashedGaussian(DiagonalGaussian):
    """Normals behind a tanh where an action is bounded, so that none lies beyond a bound.

    The action that is sampled, stored and evaluated is `u` before the tanh, so that nothing has to
    be inverted, however close to a bound it lies. Its log-probability is the density of `tanh(u)`,
    `log N(u) - sum log(1 - tanh(u)^2)` (Haarnoja et al. 2018, arXiv:1801.01290, appendix C), again
    in units of half the range. The entropy has no closed form: that of the normal is corrected by
    the expectation of `log(1 - tanh(u)^2)`, a Gauss-Hermite sum.

    Raises:
        ValueError: an action is bounded on one side alone.
    """

    squashed: Tensor
    nodes: Tensor
    node_weights: Tensor

    def __init__(
        self,
        low: NDArray[Any],
        high: NDArray[Any],
        state_std: bool = False,
        initial_log_std: float = 0.0,
    ) -> None:
        super().__init__(low, high, state_std, initial_log_std)
        if _Bounds(low, high).one_sided.any():
            raise ValueError(
                "policy.action_distribution.bounds='tanh' needs two bounds or none, got "
                f"{low} to {high}: use 'clip', or gymnasium.wrappers.RescaleAction"
            )
        self.register_buffer("squashed", torch.tensor(self.bounded), persistent=False)
        nodes, weights = np.polynomial.hermite.hermgauss(_NODES)
        for name, values in (
            ("nodes", nodes * math.sqrt(2.0)),
            ("node_weights", weights / math.sqrt(math.pi)),
        ):
            constant = torch.tensor(values, dtype=torch.float64)
            self.register_buffer(name, constant, persistent=False)

    def log_prob_and_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-density and entropy of `tanh(action)`, summed over the axes of an action."""
        log_prob, entropy = super().log_prob_and_entropy(params, action)
        mean, log_std = self._split(params)
        nodes, weights = self.nodes.to(mean.dtype), self.node_weights.to(mean.dtype)
        spread = mean.unsqueeze(-1) + log_std.exp().unsqueeze(-1) * nodes
        correction = (_log_slope(spread) * weights).sum(-1)
        log_prob = log_prob - (_log_slope(action) * self.squashed).sum(-1)
        return log_prob, entropy + (correction * self.squashed).sum(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """Squash actions `[..., A]` into the environment's range."""
        return super().to_env(self._squash(action))

    def from_env(self, action: Tensor) -> Tensor:
        """Return what the tanh made these actions of; one at a bound counts as just inside."""
        units = super().from_env(action)
        # what an environment took in fewer digits says no more of how near to a bound it was
        exact = units.dtype == self.env_dtype == torch.float64
        limit = _INSIDE_OF_DOUBLE if exact else _INSIDE
        inside = units.clamp(-limit, limit).atanh()
        return torch.where(self.squashed, inside, units)

    def features(self, action: Tensor) -> Tensor:
        """Return the squashed actions `[..., A]`, in units of half the range."""
        return self._squash(action)

    def _squash(self, action: Tensor) -> Tensor:
        return torch.where(self.squashed, action.tanh(), action)


def _log_slope(u: Tensor) -> Tensor:
    """Return `log(1 - tanh(u)^2)`, which stays exact where the tanh rounds to 1."""
    return 2.0 * (math.log(2.0) - u - softplus(-2.0 * u))


class _Bounds:
    """The bounds of a Box as float64 `[A]`, and what they make of the policy's unit.

    Args:
        low: lower bounds, in the dtype of the space.
        high: upper bounds.
    """

    def __init__(self, low: NDArray[Any], high: NDArray[Any]) -> None:
        largest = np.finfo(low.dtype).max
        limit = min(_NO_BOUND, float(largest) / 2)
        below, above = low > -limit, high < limit
        self.bounded, self.one_sided = below & above, below != above
        # no infinity is ever acted; a bound that is rounded is rounded inwards
        self.low = _rounded(np.maximum(low, -largest), np.inf)
        self.high = _rounded(np.minimum(high, largest), -np.inf)
        least = np.where(below, self.low, -np.inf)
        most = np.where(above, self.high, np.inf)
        wide = self.bounded & (self.low < self.high)
        middle = self.low / 2 + self.high / 2
        self.center = np.where(self.bounded, middle, np.clip(0.0, least, most))
        # of a single number, which any scale leads to
        self.scale = np.where(wide, self.high / 2 - self.low / 2, 1.0)
        edge = wide.astype(np.float64)
        self.lower = np.where(self.bounded, -edge, least - self.center)
        self.upper = np.where(self.bounded, edge, most - self.center)


def _rounded(bound: NDArray[Any], inwards: float) -> NDArray[np.float64]:
    """Return a bound as float64, where it must be rounded on the side of `inwards`."""
    with np.errstate(over="ignore"):
        found = bound.astype(np.float64)
    outside = found < bound if inwards > 0 else found > bound
    return np.where(outside, np.nextafter(found, inwards), found)
