"""The scale of a sum of parts."""

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from xlstm_rl.policy.auxiliary.inputs import PREVIOUS_ACTION


class ScaledSum(nn.Module):
    """Sums parts and divides by the root of their number, so that the sum is of the size of one.

    The previous action does not count, as its part starts small. It did in policies that were saved
    without a scale: they keep theirs.

    Args:
        parts: their names.
    """

    scale: Tensor

    def __init__(self, parts: Collection[str]) -> None:
        super().__init__()
        self._count = len(parts)
        counted = sum(name != PREVIOUS_ACTION for name in parts)
        self.register_buffer("scale", torch.tensor(1.0 / math.sqrt(counted)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}scale", torch.tensor(1.0 / math.sqrt(self._count)))
        super()._load_from_state_dict(state_dict, prefix, *rest)
