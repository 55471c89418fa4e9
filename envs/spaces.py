"""Observation and action spaces: which ones are supported, as text, as plain data, compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space, spaces

_INFINITE = {"inf": np.inf, "-inf": -np.inf}


def describe_space(space: Space[Any]) -> str:
    """Return one short line such as `2 numbers, float32` or `one of 4 choices`."""
    if isinstance(space, spaces.Discrete):
        first = "" if space.start == 0 else f", counted from {space.start}"
        return f"one of {space.n} choices{first}"
    if isinstance(space, spaces.Box):
        size = " x ".join(map(str, space.shape)) or "1"
        numbers = "number" if size == "1" else "numbers"
        return f"{size} {numbers}, {space.dtype}, {_bounds_text(space)}"
    return str(space)


def _bounds_text(space: spaces.Box) -> str:
    if not np.isfinite(space.low).any() and not np.isfinite(space.high).any():
        return "unbounded"
    if (space.low == space.low.flat[0]).all() and (space.high == space.high.flat[0]).all():
        return f"{space.low.flat[0]:g} to {space.high.flat[0]:g}"
    bounded = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
    return "bounded" if bounded else "partly bounded"


def check_supported_spaces(observation_space: Space[Any], action_space: Space[Any]) -> None:
    """Refuse the spaces of a single environment that no policy of this library can handle.

    Observations: a Box of one dimension, of floats or integers, or Discrete. Actions: Discrete, or
    a Box of one dimension of floats, bounded or not. A Discrete may count from any `start`; what
    leaves and enters the environment is counted from there.

    Raises:
        ValueError: Names the space, what is supported, and a way out where there is one.
    """
    supported = "a Box of one dimension (floats or integers) and Discrete"
    if not isinstance(observation_space, spaces.Discrete) and not _is_vector(
        observation_space, "fiu"
    ):
        raise ValueError(
            f"observations of {observation_space} are not supported, only {supported}"
            f"{_way_out(observation_space)}"
        )
    if not isinstance(action_space, spaces.Discrete) and not _is_vector(action_space, "f"):
        raise ValueError(
            f"actions of {action_space} are not supported, only Discrete and a Box of one "
            "dimension of floats"
        )


def _is_vector(space: Space[Any], kinds: str) -> bool:
    return (
        isinstance(space, spaces.Box)
        and len(space.shape) == 1
        and space.shape[0] > 0
        and space.dtype.kind in kinds
    )


def _way_out(space: Space[Any]) -> str:
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return ""
    if space.is_np_flattenable:
        return "; gymnasium.wrappers.FlattenObservation makes one vector of it"
    return ""


def space_to_dict(space: Space[Any]) -> dict[str, Any]:
    """Return `space` (Box or Discrete) as plain data for JSON and YAML; infinities as strings.

    Raises:
        ValueError: The space is of another kind.
    """
    if isinstance(space, spaces.Discrete):
        return {
            "type": "Discrete",
            "n": int(space.n),
            "start": int(space.start),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.Box):
        return {
            "type": "Box",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "low": [_to_plain(value) for value in space.low.ravel().tolist()],
            "high": [_to_plain(value) for value in space.high.ravel().tolist()],
        }
    raise ValueError(f"{space} cannot be saved, only Box and Discrete can")


def _to_plain(value: float) -> float | str:
    return ("inf" if value > 0 else "-inf") if np.isinf(value) else value


def space_from_dict(data: dict[str, Any]) -> Space[Any]:
    """Return the space that `space_to_dict` turned into `data`: same kind, shape, dtype, bounds.

    Raises:
        ValueError: The data do not describe a space.
    """
    try:
        dtype = np.dtype(data["dtype"])
        if data["type"] == "Discrete":
            return _discrete(data["n"], data["start"], dtype)
        if data["type"] == "Box":
            low, high = (
                np.array([_INFINITE.get(value, value) for value in data[name]], dtype=dtype)
                for name in ("low", "high")
            )
            shape = tuple(data["shape"])
            return spaces.Box(low.reshape(shape), high.reshape(shape), dtype=dtype.type)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"no space can be read from {data!r}: {error!r}") from error
    raise ValueError(f"the space has the type {data['type']!r}, expected Box or Discrete")


def _discrete(n: int, start: int, dtype: np.dtype[Any]) -> spaces.Discrete[Any]:
    if dtype == np.int64:  # Gymnasium before 1.3 knows no other, and no argument for it
        return spaces.Discrete(n, start=start)
    return spaces.Discrete(n, start=start, dtype=dtype.type)


def same_spaces(a: Space[Any], b: Space[Any]) -> str | None:
    """Return None if a policy made for the space `a` fits `b`, else one sentence why not."""
    if type(a) is not type(b):
        return f"the kind differs: {describe_space(a)} against {describe_space(b)}."
    for attribute in ("shape", "dtype", "n", "start"):
        ours, theirs = getattr(a, attribute, None), getattr(b, attribute, None)
        if np.any(ours != theirs):
            return f"the {attribute} differs: {ours} against {theirs}."
    if isinstance(a, spaces.Box) and isinstance(b, spaces.Box):
        # Not by ==, which lets bounds pass that are only close.
        if not (np.array_equal(a.low, b.low) and np.array_equal(a.high, b.high)):
            return f"the bounds differ: {a.low} to {a.high} against {b.low} to {b.high}."
    elif a != b:
        return f"the spaces differ: {a} against {b}."
    return None
