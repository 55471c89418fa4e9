"""Weights that a struct of arguments points to for many calls, read where they lie.

They are known by the places that hold them, `_parameters` and `_buffers` of modules: as soon as
another tensor stands there, or the same one has moved, its pointer is taken over.
"""

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class NotCoveredError(Exception):
    """C cannot run a part."""


class _Held(NamedTuple):
    """A tensor by the place that holds it, what it has to be, and the field for its pointer."""

    owner: dict[str, Any]
    name: str
    shape: torch.Size
    dtype: torch.dtype
    arguments: Any
    field: str


class HeldTensors:
    """The weights of a module, and the fields that take their pointers."""

    def __init__(self, module: nn.Module) -> None:
        self._places = {
            id(tensor): (owner, name)
            for one in module.modules()
            for owner in (one._parameters, one._buffers)
            for name, tensor in owner.items()
            if tensor is not None
        }
        self._held: list[_Held] = []
        self._owners: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._pointers: list[int] = []

    def hold(
        self, arguments: Any, field: str, tensor: Tensor | None, dtype: torch.dtype = torch.float32
    ) -> None:
        """Keep the pointer of a weight in a field of a struct; that of none stays null.

        Raises:
            NotCoveredError: no module holds it, as one that is made of others (parametrizations).
        """
        if tensor is not None:
            if id(tensor) not in self._places:
                raise NotCoveredError
            owner, name = self._places[id(tensor)]
            self._held.append(_Held(owner, name, tensor.shape, dtype, arguments, field))
            self._owners.append(owner)
            self._names.append(name)

    def take(self) -> bool:
        """Set the pointers of what stands in the places now; False: C cannot read one of them."""
        try:
            # every acting step comes by: no loop of Python's
            found = map(operator.getitem, self._owners, self._names)
            pointers = list(map(Tensor.data_ptr, found))
        except (KeyError, TypeError):
            return False
        if pointers == self._pointers:
            return True
        for one in self._held:
            if not is_plain(one.owner[one.name], one.shape, one.dtype):
                return False
        for one, address in zip(self._held, pointers, strict=True):
            setattr(one.arguments, one.field, address)
        self._pointers = pointers
        return True


def is_plain(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> bool:
    """Whether C can read ``x`` as so many numbers, one after the other."""
    return x.shape == shape and x.dtype is dtype and x.is_cpu and x.is_contiguous()
