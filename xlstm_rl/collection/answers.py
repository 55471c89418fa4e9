"""What vector environments answer, read into the one form that training expects."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_rl.envs.faults.error_context import describe_answer

Array = NDArray[Any]
BoolArray = NDArray[np.bool_]


def unpack_step(answer: Any) -> Sequence[Any]:
    """Return observation, reward, terminated, truncated and info.

    Raises:
        ValueError: these are not what `step` returned.
    """
    if isinstance(answer, tuple | list) and len(answer) == 5:
        return answer
    raise ValueError(
        f"step returned {describe_answer(answer)}, expected observation, reward, terminated, "
        "truncated and info"
    )


def unpack_reset(answer: Any) -> Sequence[Any]:
    """Return observation and info.

    Raises:
        ValueError: these are not what `reset` returned.
    """
    if isinstance(answer, tuple | list) and len(answer) == 2:
        return answer
    raise ValueError(f"reset returned {describe_answer(answer)}, expected observation and info")


def read_rewards(values: Any, rows: int) -> Array:
    """Return rewards `[B]`; a list or `[B, 1]` is taken too.

    Raises:
        ValueError: they are not numbers, or not one per environment.
    """
    if type(values) is np.ndarray and values.dtype == np.float64 and values.shape == (rows,):
        return values
    array = _one_each(values, "reward", rows)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"reward has dtype {array.dtype}, expected {rows} numbers")
    return array


def read_flags(values: Any, name: str, rows: int) -> BoolArray:
    """Return flags `[B]`; zeros and ones of any type, a list or `[B, 1]` are taken too.

    Raises:
        ValueError: they are neither true nor false, or not one for each environment.
    """
    if type(values) is np.ndarray and values.dtype == np.bool_ and values.shape == (rows,):
        return values
    array = _one_each(values, name, rows)
    flags: BoolArray = array != 0
    wrong = flags & (array != 1) if array.dtype.kind in "iufb" else np.ones(rows, np.bool_)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"environment {row}: {name} is {array[row]!r}, expected true or false")
    return flags


def _one_each(values: Any, name: str, rows: int) -> Array:
    array = as_array(values, name)
    if array.shape == (rows, 1) or (array.shape == () and rows == 1):
        array = array.reshape(rows)
    if array.shape != (rows,):
        raise ValueError(
            f"{name} has shape {list(array.shape)}, expected [{rows}]: one for each environment"
        )
    return array


def as_array(values: Any, name: str) -> Array:
    """Return an array of what an environment answered.

    Raises:
        ValueError: it is ragged, on another device, or has masked entries.
    """
    if isinstance(values, np.ma.MaskedArray) and values.mask.any():
        raise ValueError(f"{name} is a masked array with masked entries: fill them")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} cannot be read as an array ({str(error).splitlines()[0]}); an environment "
            "that answers tensors says so with tensors = True"
        ) from error
