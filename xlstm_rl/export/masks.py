"""The action mask that is part of an observation, as tensors alone: what a file can hold."""

from collections.abc import Mapping

import torch
from gymnasium import spaces
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import Leaf, space_leaves
from xlstm_rl.policy.policy_module import PolicyModule


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
        self._parts = [
            (action, [mask.name for mask in masks if _belongs(mask, action)])
            for action in space_leaves(policy.action_space)
        ]
        self._widths = [
            part.num_outputs for part in getattr(policy.network.distribution, "parts", ())
        ] or [policy.network.distribution.num_outputs]

    def __call__(self, raw: Mapping[str, Tensor]) -> Tensor:
        """Return the flags, true where an output may be taken."""
        found = []
        for (action, names), width in zip(self._parts, self._widths, strict=True):
            rows = next(iter(raw.values())).shape[0]
            if not names:  # free
                like = next(iter(raw.values()))
                found.append(torch.ones(rows, width, dtype=torch.bool, device=like.device))
                continue
            values = torch.cat([raw[name].flatten(1) for name in names], 1)
            if isinstance(action.space, spaces.MultiBinary):
                found.append(torch.stack((values != 1, values != 0), -1).flatten(1))
            else:
                found.append(values != 0)
        return torch.cat(found, 1)


def _belongs(mask: Leaf, action: Leaf) -> bool:
    """Whether a leaf of the mask is that of a leaf of the action space, or a part of it."""
    return mask.path[1 : 1 + len(action.path)] == action.path
