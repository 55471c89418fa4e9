"""The action mask that is part of an observation, as tensors alone: what a file can hold."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import Leaf, space_leaves
from xlstm_rl.policy.policy_module import PolicyModule


class MaskPart(NamedTuple):
    """What masks the outputs of one leaf of the action space."""

    names: tuple[str, ...]
    """Leaves of the observation; none: its outputs are free."""

    sizes: tuple[int, ...]
    """How many numbers each of them has."""

    is_bits: bool
    """Whether a number masks two outputs, 0 and 1: that of a MultiBinary space."""

    width: int
    """How many outputs of the network it masks."""


class ObservedMask:
    """Reads the flags of the network's outputs `[B, num_outputs]` from raw observations.

    It does what `ActionMask.read` does and checks nothing: flags cannot be looked into while a step
    is exported.

    Args:
        policy: with `policy.action_mask: observation`.
    """

    def __init__(self, policy: PolicyModule) -> None:
        key = policy.policy_config.mask_in_observation
        masks = [leaf for leaf in space_leaves(policy.observation_space) if leaf.path[0] == key]
        distribution = policy.network.distribution
        widths = [part.num_outputs for part in getattr(distribution, "parts", ())]
        self.parts = [
            MaskPart(
                tuple(mask.name for mask in masks if _belongs(mask, action)),
                tuple(
                    math.prod(mask.space.shape or ()) for mask in masks if _belongs(mask, action)
                ),
                isinstance(action.space, spaces.MultiBinary),
                width,
            )
            for action, width in zip(
                space_leaves(policy.action_space), widths or [distribution.num_outputs], strict=True
            )
        ]

    def __call__(self, raw: Mapping[str, Tensor]) -> Tensor:
        """Return the flags, true where an output may be taken."""
        found = []
        for part in self.parts:
            rows = next(iter(raw.values())).shape[0]
            if not part.names:  # free
                like = next(iter(raw.values()))
                found.append(torch.ones(rows, part.width, dtype=torch.bool, device=like.device))
                continue
            values = torch.cat([raw[name].flatten(1) for name in part.names], 1)
            if part.is_bits:
                found.append(torch.stack((values != 1, values != 0), -1).flatten(1))
            else:
                found.append(values != 0)
        return torch.cat(found, 1)


def _belongs(mask: Leaf, action: Leaf) -> bool:
    """Whether a leaf of the mask is that of a leaf of the action space, or a part of it."""
    return mask.path[1 : 1 + len(action.path)] == action.path
