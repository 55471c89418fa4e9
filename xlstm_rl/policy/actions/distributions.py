"""From an action space to its distribution; the joint one of a Dict or Tuple."""

import math
from abc import ABC
from itertools import accumulate, pairwise
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from xlstm_rl.envs.spaces.leaves import build, is_nested, space_leaves, take
from xlstm_rl.envs.spaces.support import describe_space
from xlstm_rl.options.fields import own_fields
from xlstm_rl.options.section import refuse_unused
from xlstm_rl.policy.actions.base import ActionDistribution
from xlstm_rl.policy.actions.categorical import Categorical
from xlstm_rl.policy.actions.gaussian import DiagonalGaussian
from xlstm_rl.policy.config import DISTRIBUTIONS, AutoConfig, DistributionConfig, PolicyConfig

_EXACT_IN_FLOAT = 2**24


class JointDistribution(ActionDistribution):
    """Independent distributions over the leaves of a Dict or Tuple space.

    An action in the policy's units is one vector of all leaves, of the parameters' dtype, in which
    choices are integers. The joint log-probability and entropy are the sums over the leaves.
    """

    action_dtype = torch.float32

    def __init__(self, space: gymnasium.Space[Any], parts: list[ActionDistribution]) -> None:
        super().__init__()
        self.space = space
        self.parts = nn.ModuleList(parts)
        self._parts = parts  # typed; the list above moves them between devices
        self.num_params = sum(part.num_params for part in parts)
        self.num_free = sum(part.num_free for part in parts)
        self.num_features = sum(part.num_features for part in parts)
        sizes = [int(np.prod(part.action_shape)) for part in parts]
        self.action_shape = (sum(sizes),)
        self._actions = _slices(sizes)
        self._outputs = _slices([part.num_outputs for part in parts])
        self._free = _slices([part.num_free for part in parts], self.num_outputs)

    def initial_free(self) -> Tensor:
        """Return the leaves' free parameters at the start, one leaf after the other."""
        return torch.cat([part.initial_free() for part in self._parts])

    def _params(self, params: Tensor) -> list[Tensor]:
        """Return each leaf's parameters: its outputs of the network, then its free ones."""
        return [
            torch.cat((params[..., outputs], params[..., free]), -1)
            if part.num_free
            else params[..., outputs]
            for part, outputs, free in zip(self._parts, self._outputs, self._free, strict=True)
        ]

    def _split(self, action: Tensor) -> list[Tensor]:
        """Return each leaf's action in its own shape, choices as integers."""
        batch, found = action.shape[:-1], []
        for part, where in zip(self._parts, self._actions, strict=True):
            one = action[..., where].reshape(*batch, *part.action_shape)
            found.append(one if part.action_dtype.is_floating_point else one.to(part.action_dtype))
        return found

    def _join(self, actions: list[Tensor], params: Tensor) -> Tensor:
        pairs = zip(self._parts, actions, strict=True)
        flat = [_as_vector(one, part.action_shape) for part, one in pairs]
        return torch.cat([one.to(params.dtype) for one in flat], -1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw actions `[..., A]`, leaf after leaf."""
        pairs = zip(self._parts, self._params(params), strict=True)
        return self._join([part.sample(own, generator) for part, own in pairs], params)

    def mode(self, params: Tensor) -> Tensor:
        """Return the most probable actions `[..., A]`."""
        pairs = zip(self._parts, self._params(params), strict=True)
        return self._join([part.mode(own) for part, own in pairs], params)

    def log_prob_and_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of the leaves' log-probabilities and entropies."""
        found = [
            part.log_prob_and_entropy(own, one)
            for part, own, one in zip(
                self._parts, self._params(params), self._split(action), strict=True
            )
        ]
        log_probs, entropies = zip(*found, strict=True)
        return torch.stack(log_probs).sum(0), torch.stack(entropies).sum(0)

    def mean_log_prob(self, params: Tensor) -> Tensor | None:
        """Return the sum of the leaves' that have choices."""
        pairs = zip(self._parts, self._params(params), strict=True)
        found = [part.mean_log_prob(own) for part, own in pairs]
        known = [one for one in found if one is not None]
        return torch.stack(known).sum(0) if known else None

    def shown(self, params: Tensor) -> dict[str, Tensor]:
        """Return what the leaves show, after their names."""
        found: dict[str, Tensor] = {}
        leaves = zip(space_leaves(self.space), self._parts, self._params(params), strict=True)
        for leaf, part, own in leaves:
            found |= {f"{leaf.name}/{name}": one for name, one in part.shown(own).items()}
        return found

    def decision(self, params: Tensor, action: Tensor) -> Tensor:
        """Return the numbers that decide for each leaf, one leaf after the other."""
        leaves = zip(self._parts, self._params(params), self._split(action), strict=True)
        return torch.cat([part.decision(own, one) for part, own, one in leaves], -1)

    def to_env(self, action: Tensor) -> Any:
        """Return actions nested like the space, each leaf as its own distribution gives it."""
        leaves = zip(self._parts, self._split(action), strict=True)
        return build(self.space, iter([part.to_env(one) for part, one in leaves]))

    def from_env(self, action: Any) -> Tensor:
        """Return nested actions of the environment as one vector `[..., A]`."""
        found = []
        for leaf, part in zip(space_leaves(self.space), self._parts, strict=True):
            one = part.from_env(take(action, leaf.path))
            found.append(_as_vector(one, part.action_shape).to(self.params_dtype))
        return torch.cat(found, -1)

    def features(self, action: Tensor) -> Tensor:
        """Return the leaves' features side by side."""
        leaves = zip(self._parts, self._split(action), strict=True)
        return torch.cat([part.features(one) for part, one in leaves], -1)


def _as_vector(action: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return actions `[..., *shape]` as `[..., A]`; of no rows -1 could be any size."""
    return action.reshape(*action.shape[: action.ndim - len(shape)], math.prod(shape))


def _slices(sizes: list[int], start: int = 0) -> list[slice]:
    return [slice(a, b) for a, b in pairwise(accumulate(sizes, initial=start))]


class AutoDistribution(ActionDistribution, ABC):
    """The family that fits each part of a space: choices are categorical, numbers Gaussian."""

    @classmethod
    def for_space(
        cls, space: gymnasium.Space[Any], options: DistributionConfig
    ) -> ActionDistribution | None:
        """Return the distribution of whichever family fits."""
        found = Categorical.for_space(space, options)
        return DiagonalGaussian.for_space(space, options) if found is None else found


def make_distribution(
    space: gymnasium.Space[Any], config: PolicyConfig | None = None
) -> ActionDistribution:
    """Return the distribution over an action space; over a Dict or Tuple that of all its parts.

    Args:
        space: of one environment.
        config: which family, and its options; None: the defaults.

    Raises:
        ValueError: the space, or a part of it, has no distribution; or none of its parts is one
            that the options are for.
    """
    options = (config or PolicyConfig()).action_distribution
    leaves = [leaf.space for leaf in space_leaves(space)]
    family: type[ActionDistribution] = DISTRIBUTIONS.target(options.kind)
    asked = [family.for_space(leaf, options) for leaf in leaves]
    _check_use(space, options, asked)
    parts = []
    for leaf, found in zip(leaves, asked, strict=True):
        part = AutoDistribution.for_space(leaf, AutoConfig()) if found is None else found
        if part is None:
            raise ValueError(
                f"action space {leaf}: expected Discrete, MultiDiscrete, MultiBinary, Box of "
                "floats, or Dict or Tuple of these"
            )
        if isinstance(leaf, spaces.Discrete) and leaf.n > _EXACT_IN_FLOAT and is_nested(space):
            raise ValueError(f"action space {leaf} inside {space}: at most 2^24 choices")
        parts.append(part)
    return JointDistribution(space, parts) if is_nested(space) else parts[0]


def _check_use(
    space: gymnasium.Space[Any],
    options: DistributionConfig,
    parts: list[ActionDistribution | None],
) -> None:
    """Refuse options that no part of the space has a use for."""
    path, kind = type(options).path, options.kind
    if is_nested(space) and any(p is not None and p.resample_steps is not None for p in parts):
        raise ValueError(
            f"{path('std')}=gsde: expected a single Box of floats as the action space, got "
            f"{describe_space(space)}"
        )
    if kind != "auto":
        if all(part is None for part in parts):
            raise ValueError(
                f"{path('kind')}={kind}: no part of the action space fits it: "
                f"{describe_space(space)}"
            )
        return
    if any(isinstance(part, DiagonalGaussian) for part in parts):
        return
    none = f"no part of the action space is a Box of floats: {describe_space(space)}"
    refuse_unused(options, own_fields(type(options)), f"Gaussian actions, but {none}")
