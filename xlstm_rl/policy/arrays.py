"""The border between arrays and tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xlstm_rl.envs.spaces.leaves import map_leaves

# of a size that has two C types, torch knows one
_NAMES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_SHARED = frozenset(np.dtype(name).num for name in _NAMES)


def as_tensor(values: Any, name: str = "an array") -> Tensor:
    """Return numbers as a tensor, in whichever form they come.

    Tensors pass as they are. Arrays may be strided, read-only or of the other byte order; these
    are copied, others are shared. Also taken are numbers, lists and tuples of numbers, arrays or
    tensors, and what has `__array__`, such as Gymnasium's LazyFrames. There is no tensor of
    longdouble: it becomes float64.

    Args:
        values: the numbers.
        name: what they are called in errors.

    Raises:
        ValueError: the values are not numbers, or are lists of different lengths.
    """
    if isinstance(values, Tensor):
        return values
    if isinstance(values, np.ndarray) and values.flags.carray:
        dtype = values.dtype
        if dtype.num in _SHARED and dtype.isnative:
            return torch.from_numpy(values)
    if isinstance(values, list | tuple) and values and isinstance(values[0], Tensor):
        return torch.stack([as_tensor(one, name) for one in values])
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} cannot be made one array: {error}") from error
    dtype = array.dtype
    if dtype.kind not in "fiub":
        raise ValueError(
            f"{name} is a {type(values).__name__} of dtype {dtype}, expected real numbers: floats, "
            "integers or bools"
        )
    code = f"{dtype.kind}{dtype.itemsize}"
    copy = np.empty(array.shape, code if code in _NAMES else "f8")
    copy[...] = array
    return torch.from_numpy(copy)


def is_traced(tensor: Tensor) -> bool:
    """Return whether a transform of torch follows what is done with a tensor."""
    return (
        type(tensor) not in (Tensor, nn.Parameter)
        or torch.compiler.is_compiling()
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def to_numpy(action: Any) -> Any:
    """Return actions as NumPy, nested as they are; for a GPU the host waits."""
    if isinstance(action, Tensor):
        return action.cpu().numpy()
    return map_leaves(lambda one: one.cpu().numpy(), action)
