"""The scale of a sum of parts."""

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from xlstm_rl.policy.auxiliary.inputs import PREVIOUS_ACTION


class ScaledSum(nn.Module):
    """Sums parts and divides by the root of their number, so that the sum is of the size of one.

    The previous action does not count, or a policy would learn its observations more slowly for it
    (docs/defaults.md). It did in policies that were saved without a scale: they keep theirs.

    Args:
        parts: their names.
    """

    scale: Tensor

    def __init__(self, parts: Collection[str]) -> None:
        super().__init__()
        self._count = len(parts)
        counted = sum(name != PREVIOUS_ACTION for name in parts)
        self.register_buffer("scale", torch.tensor(1.0 / math.sqrt(counted)))

    @property
    def older_scale(self) -> Tensor:
        """That of a policy that was saved without one."""
        return torch.tensor(1.0 / math.sqrt(self._count))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}scale", self.older_scale)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def older_scales(module: nn.Module) -> dict[str, Tensor]:
    """Return the scales of a policy that was saved without any, by their keys."""
    sums = ((name, one) for name, one in module.named_modules() if isinstance(one, ScaledSum))
    return {f"{name}.scale": one.older_scale for name, one in sums}
