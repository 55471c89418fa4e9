"""The weights of the parts of an observation side by side, as one matrix that a chain reads.

They are copied at every call, which costs a few microseconds: so nothing can go stale.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xlstm_rl.kernels.native.arguments import empty, run, struct
from xlstm_rl.kernels.native.held import HeldTensors
from xlstm_rl.kernels.native.program import Call

_Part = struct("joined_part", "inputs is_embedding", "weight bias dweight dbias")
_Arguments = struct(
    "joined_arguments", "width inputs count", "parts scale weight bias dweight dbias"
)


class PartWeights(NamedTuple):
    """Of one part."""

    weight: Tensor
    """``[width, inputs]``; of an embedding ``[inputs, width]``."""

    bias: Tensor | None
    """``[width]``."""

    is_embedding: bool


class JoinedWeights(nn.Module):
    """One matrix of many, ``scale`` times each, and the scaled sum of their biases.

    Args:
        module: holds them.
        parts: from the first input to the last.
        scale: one number; ``None``: 1.

    Raises:
        NotCoveredError: the module does not hold one of them.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, module: nn.Module, parts: Sequence[PartWeights], scale: Tensor | None
    ) -> None:
        super().__init__()
        sizes = [len(one.weight) if one.is_embedding else one.weight.shape[1] for one in parts]
        width = parts[0].weight.shape[1 if parts[0].is_embedding else 0]
        with torch.inference_mode(False):  # or else it could be written in that mode alone
            copies = empty(width, sum(sizes)).zero_(), empty(width).zero_()
        for name, copy in zip(("weight", "bias"), copies, strict=True):
            self.register_buffer(name, copy, persistent=False)
        self._held = HeldTensors(module)
        self._structs = (_Part * len(parts))()
        self.arguments: Any = _Arguments(width, sum(sizes), len(parts))
        """What `xl_joined_forward` takes, once `take` has been called."""
        self.arguments.parts = ctypes.addressof(self._structs)
        self.arguments.weight, self.arguments.bias = (one.data_ptr() for one in copies)
        for one, size, part in zip(parts, sizes, self._structs, strict=True):
            part.inputs, part.is_embedding = size, one.is_embedding
            self._held.hold(part, "weight", one.weight)
            self._held.hold(part, "bias", one.bias)
        self._held.hold(self.arguments, "scale", scale)
        self._parts = [*parts]

    def take(self) -> bool:
        """Take over where the parts' weights are now; False: C cannot read one of them."""
        return self._held.take()

    def refresh(self) -> bool:
        """Take over the parts' weights as they are now; False: C cannot read one of them."""
        return self.take() and not run(*self.call)

    @property
    def call(self) -> Call:
        """What copies the parts' weights, once `take` has been called."""
        return Call("xl_joined_forward", self.arguments)

    def gradients(self, dweight: Tensor, dbias: Tensor) -> list[Tensor]:
        """Return those of the parts: weight and, if there is one, bias of each.

        Args:
            dweight: ``[width, inputs]``.
            dbias: ``[width]``.
        """
        found, call = self.placed_gradients(dweight, dbias)
        run(*call)
        return found

    def placed_gradients(self, dweight: Tensor, dbias: Tensor) -> tuple[list[Tensor], Call]:
        """Return where `gradients` will be, and the call that puts them there."""
        found: list[Tensor] = []
        for one, part in zip(self._parts, self._structs, strict=True):
            found.append(torch.empty_like(one.weight))
            part.dweight = found[-1].data_ptr()
            if one.bias is not None:
                found.append(torch.empty_like(one.bias))
                part.dbias = found[-1].data_ptr()
        self.arguments.dweight, self.arguments.dbias = dweight.data_ptr(), dbias.data_ptr()
        return found, Call("xl_joined_backward", self.arguments)
