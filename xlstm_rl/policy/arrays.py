"""The border between arrays and tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import map_leaves

_SHARED = frozenset(map(np.dtype, "?bBhHiIlLqQefd"))  # of this machine's byte order


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
        ValueError: these are no numbers, or lists of different lengths.
    """
    if isinstance(values, Tensor):
        return values
    if isinstance(values, np.ndarray) and values.dtype in _SHARED and values.flags.carray:
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
    wanted = np.dtype(np.float64) if dtype.char == "g" else dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=wanted, order="C"))


def to_numpy(action: Any) -> Any:
    """Return actions as NumPy, nested as they are; for a GPU the host waits."""
    if isinstance(action, Tensor):
        return action.cpu().numpy()
    return map_leaves(lambda one: one.cpu().numpy(), action)
