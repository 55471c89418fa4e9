"""Encoders of the user's own: `policy.encoder: module:Name`."""

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from xlstm_rl.config.errors import one_line
from xlstm_rl.envs.spaces.leaves import Leaf, is_nested, observation_kind, space_leaves
from xlstm_rl.normalization import Observation
from xlstm_rl.options.functions import find_named
from xlstm_rl.policy.auxiliary.inputs import OBSERVATION
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.encoders.observations import map_observation
from xlstm_rl.policy.encoders.scaled_sum import ScaledSum


class OwnEncoder(nn.Module):
    """Runs somebody's module on rows `[N, ...]`, whether they are of a step or of a sequence.

    The module is made by `Name(space, width, **encoder_kwargs)` and takes

    - numbers as the normaliser leaves them, `[N, n]`, whatever the shape of the Box;
    - images as the environment has them, `[N, *shape]`, uint8;
    - choices as integers from 0, `[N]`, or `[N, k]` of a MultiDiscrete space;
    - of a Dict or Tuple space a dict of these, by names such as `camera` or `pose/0`;

    and returns `[N, width]`. A row must not depend on others: what acts is what trains.

    Raises:
        ValueError: it cannot be imported or made, or returns something else.
    """

    def __init__(self, space: gymnasium.Space[Any], width: int, config: PolicyConfig) -> None:
        super().__init__()
        self.width = width
        without = config.mask_in_observation
        leaves = space_leaves(space, without)
        self.names = [leaf.name for leaf in leaves] if is_nested(space) else None
        self._rank = _zeros(leaves[0], 1).ndim - 1
        where = f"policy.encoder={config.encoder}"
        try:
            make = find_named(config.encoder)
        except ValueError as error:
            raise ValueError(f"policy.encoder: {error}") from None
        try:
            own = make(space, width, **config.encoder_kwargs)
            if not isinstance(own, nn.Module):
                raise TypeError(f"made a {type(own).__name__}, expected a torch.nn.Module")
            self.own = own
            found = self._try(leaves)
        except Exception as error:
            raise ValueError(f"{where}: {type(error).__name__}: {one_line(error)}") from error
        if not isinstance(found, Tensor) or found.shape != (2, width):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"{where} returned {shape} for 2 observations, expected [2, {width}]: "
                "as many numbers as memory.width"
            )

    def _try(self, leaves: list[Leaf]) -> Any:
        with torch.no_grad():
            rows = {leaf.name: _zeros(leaf, 2) for leaf in leaves}
            return self.own(rows[""] if self.names is None else rows)

    def forward(self, observation: Observation) -> Tensor:
        """Return `[..., width]` for observations `[..., *shape]`."""
        if self.names is not None and not isinstance(observation, Tensor):
            observation = {name: observation[name] for name in self.names}
        first = observation if isinstance(observation, Tensor) else next(iter(observation.values()))
        lead = first.shape[: first.ndim - self._rank]
        if len(lead) == 1:
            out: Tensor = self.own(observation)
            return out
        rows = map_observation(lambda one: one.flatten(0, len(lead) - 1), observation)
        features: Tensor = self.own(rows)
        return features.unflatten(0, lead)  # type: ignore[no-any-return]


class WithAuxiliary(ScaledSum):
    """Adds what stands beside the observation to an encoder's features `[..., width]`."""

    def __init__(self, encoder: OwnEncoder, layers: dict[str, nn.Module]) -> None:
        super().__init__([OBSERVATION, *layers])
        self.encoder = encoder
        self.names = list(layers)
        self.layers = nn.ModuleList(layers.values())

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return `[..., width]` for tensors by name."""
        is_bare = self.encoder.names is None
        out: Tensor = self.encoder(observation[OBSERVATION] if is_bare else observation)
        for name, layer in zip(self.names, self.layers, strict=True):
            out = out + layer(observation[name])
        return out * self.scale


def _zeros(leaf: Leaf, rows: int) -> Tensor:
    """Return rows of zeros of a leaf, as the normaliser would hand them on."""
    space, kind = leaf.space, observation_kind(leaf.space)
    shape = tuple(space.shape or ())
    if kind == "image":
        return torch.zeros(rows, *shape, dtype=torch.uint8)
    if kind == "discrete":
        return torch.zeros(rows, dtype=torch.long)
    size = math.prod(shape)
    if kind == "multi_discrete":
        return torch.zeros(rows, size, dtype=torch.long)
    return torch.zeros(rows, size)
