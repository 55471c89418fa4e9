"""Spaces as plain data, for the YAML file of a saved policy."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

_INFINITE = {"inf": np.inf, "-inf": -np.inf}
_MANY = 64
_KINDS = "Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple"


def space_to_dict(space: Space[Any]) -> dict[str, Any]:
    """Return `space` as plain data for JSON and YAML; infinities as strings.

    Raises:
        ValueError: The space, or a part of it, is of another kind than Box, Discrete,
            MultiDiscrete, MultiBinary, Dict and Tuple.
    """
    if isinstance(space, spaces.Discrete):
        return {
            "type": "Discrete",
            "n": int(space.n),
            "start": int(space.start),
            "dtype": _dtype_name(space),
        }
    if isinstance(space, spaces.Box):
        return {
            "type": "Box",
            "shape": list(space.shape),
            "dtype": _dtype_name(space),
            "low": _bound_to_plain(space.low),
            "high": _bound_to_plain(space.high),
        }
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": _dtype_name(space),
        }
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Dict):
        parts: list[Any] = [[key, space_to_dict(part)] for key, part in space.items()]
        if not all(isinstance(key, str | int | np.integer) for key, _ in parts):
            raise ValueError(f"{space} cannot be saved: its keys must be strings or integers")
        pairs: list[Any] = [[_plain_key(key), part] for key, part in parts]
        return {"type": "Dict", "spaces": pairs}  # pairs: the order counts
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [space_to_dict(part) for part in space]}
    raise ValueError(f"{space} cannot be saved: expected {_KINDS}")


def _plain_key(key: Any) -> str | int:
    return str(key) if isinstance(key, str) else int(key)


def _dtype_name(space: Space[Any]) -> str:
    return str(np.dtype(space.dtype).newbyteorder("=").name)


def _bound_to_plain(bound: NDArray[Any]) -> Any:
    values = [_to_plain(value) for value in bound.ravel().tolist()]
    # one number for all of an image, which would fill pages
    return values[0] if len(values) > _MANY and len(set(values)) == 1 else values


def _to_plain(value: Any) -> float | str:
    if isinstance(value, np.longdouble):  # no number of a file: its digits are
        return str(value)
    return ("inf" if value > 0 else "-inf") if np.isinf(value) else value


def space_from_dict(data: dict[str, Any]) -> Space[Any]:
    """Return the space that `space_to_dict` turned into `data`: same kind, shape, dtype, bounds.

    Raises:
        ValueError: The data do not describe a space.
    """
    try:
        read = _READERS.get(data["type"])
        if read is not None:
            return read(data)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"no space can be read from {data!r}: {error!r}") from error
    raise ValueError(f"the space has the type {data['type']!r}, expected one of {_KINDS}")


def _discrete(data: dict[str, Any]) -> Space[Any]:
    n, start, dtype = data["n"], data["start"], np.dtype(data["dtype"])
    if dtype == np.int64:  # Gymnasium before 1.3 knows no other, and no argument for it
        return spaces.Discrete(n, start=start)
    return spaces.Discrete(n, start=start, dtype=dtype.type)


def _box(data: dict[str, Any]) -> Space[Any]:
    dtype, shape = np.dtype(data["dtype"]), tuple(data["shape"])
    low, high = (_bound_from_plain(data[name], shape, dtype) for name in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype.type)


def _bound_from_plain(data: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if not isinstance(data, list):
        return np.full(shape, _INFINITE.get(data, data), dtype=dtype)
    return np.array([_INFINITE.get(value, value) for value in data], dtype=dtype).reshape(shape)


def _multi_discrete(data: dict[str, Any]) -> Space[Any]:
    return spaces.MultiDiscrete(
        data["nvec"], dtype=np.dtype(data["dtype"]).type, start=data["start"]
    )


def _multi_binary(data: dict[str, Any]) -> Space[Any]:
    shape = data["shape"]
    return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)


def _dict(data: dict[str, Any]) -> Space[Any]:
    # pairs, not a mapping: Gymnasium would sort the keys of one
    return spaces.Dict([(key, space_from_dict(part)) for key, part in data["spaces"]])


def _tuple(data: dict[str, Any]) -> Space[Any]:
    return spaces.Tuple([space_from_dict(part) for part in data["spaces"]])


_READERS = {
    "Discrete": _discrete,
    "Box": _box,
    "MultiDiscrete": _multi_discrete,
    "MultiBinary": _multi_binary,
    "Dict": _dict,
    "Tuple": _tuple,
}
