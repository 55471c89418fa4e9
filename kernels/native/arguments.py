"""What a call by pointer hands over: the struct of its arguments, whose tensors are contiguous."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.native.library import call, library


def struct(name: str, integers: str, pointers: str) -> Any:
    """Return the ``ctypes`` class of a C struct: its ``int64_t``, then its pointers, by name."""
    fields: list[tuple[str, Any]] = [(field, ctypes.c_int64) for field in integers.split()]
    fields += [(field, ctypes.c_void_p) for field in pointers.split()]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def pointer(x: Tensor | None) -> int | None:
    """Where the numbers of a contiguous tensor lie; ``None``, a null pointer, for no tensor."""
    return None if x is None else x.data_ptr()


def contiguous(x: Tensor | None) -> Tensor | None:
    """Return the tensor as C reads it, a copy if need be."""
    return None if x is None else x.contiguous()


def step_fits(
    x: Tensor,
    reset: Tensor | None,
    state: tuple[Tensor, ...] | None,
    shapes: tuple[tuple[int, ...], ...],
) -> bool:
    """Whether C can run on what differs from step to step: ``x [B, D]``, flags, a state."""
    if not x.is_contiguous():
        return False
    if reset is not None and not (
        reset.dtype is torch.bool and reset.is_cpu and reset.shape == x.shape[:1]
    ):
        return False
    if state is None:
        return True
    for s, shape in zip(state, shapes, strict=True):
        if not (s.shape == shape and s.dtype is torch.float32 and s.is_contiguous() and s.is_cpu):
            return False
    return True


def run(name: str, arguments: Any) -> int:
    """Call a function of the library, which the caller has found to be there: its status."""
    return call(getattr(_library(), name), arguments)


def address_of(name: str) -> int:
    """Where a function of the library is, for a call out of C."""
    address = ctypes.cast(getattr(_library(), name), ctypes.c_void_p).value
    assert address is not None
    return address


def empty(*shape: int) -> Tensor:
    """Return memory for numbers of C, whatever type and device torch makes tensors of by itself."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def tensor_of(values: Any) -> Tensor:
    """Return numbers of C as a tensor, likewise."""
    return torch.tensor(values, dtype=torch.float32, device="cpu")


def bytes_for(name: str, arguments: Any) -> int:
    """What a function of the library says about how many bytes a call will need."""
    function = getattr(_library(), name)
    function.restype = ctypes.c_int64
    size: int = function(ctypes.byref(arguments))
    return size


def _library() -> ctypes.CDLL:
    found = library()
    assert found is not None  # `takes_native` has asked
    return found
