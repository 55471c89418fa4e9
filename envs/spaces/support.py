"""Observation and action spaces: which ones are supported, as text, compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from xlstm_rl.envs.spaces.leaves import observation_kind, space_leaves


def describe_space(space: Space[Any]) -> str:
    """Return one short line such as `2 numbers, float32` or `one of 4 choices`."""
    if isinstance(space, spaces.Discrete):
        first = "" if space.start == 0 else f", counted from {space.start}"
        return f"one of {space.n} choices{first}"
    if isinstance(space, spaces.Box):
        size = " x ".join(map(str, space.shape)) or "1"
        numbers = "number" if size == "1" else "numbers"
        return f"{size} {numbers}, {space.dtype}, {_bounds_text(space)}"
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return "; ".join(
            f"{leaf.name}: {describe_space(leaf.space)}" for leaf in space_leaves(space)
        )
    return str(space)


def _bounds_text(space: spaces.Box) -> str:
    if not np.isfinite(space.low).any() and not np.isfinite(space.high).any():
        return "unbounded"
    if (space.low == space.low.flat[0]).all() and (space.high == space.high.flat[0]).all():
        return f"{space.low.flat[0]:g} to {space.high.flat[0]:g}"
    bounded = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
    return "bounded" if bounded else "partly bounded"


_OBSERVATIONS = (
    "Box (of floats, integers or bools), Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple "
    "of these"
)
_ACTIONS = "Discrete, MultiDiscrete, MultiBinary, Box (of floats), and Dict and Tuple of these"


def check_supported_spaces(observation_space: Space[Any], action_space: Space[Any]) -> None:
    """Refuse the spaces of a single environment that no policy of this library can handle.

    Observations: Box of floats, integers or bools, Discrete, MultiDiscrete, MultiBinary, and Dict
    and Tuple of these, nested to any depth. Actions: the same with a Box of floats alone. What
    counts from a `start` leaves and enters the environment counted from there.

    Raises:
        ValueError: Names the space, the part of it that is not supported, and what is.
    """
    for what, space, accepts, supported in (
        ("observations", observation_space, _is_observation, _OBSERVATIONS),
        ("actions", action_space, _is_action, _ACTIONS),
    ):
        leaves = space_leaves(space)
        if not leaves:
            raise ValueError(f"{what} of {space} are not supported: there is nothing in it")
        for leaf in leaves:
            if not accepts(leaf.space):
                where = f", for its part {leaf.name!r} is {leaf.space}" if leaf.path else ""
                raise ValueError(f"{what} of {space} are not supported{where}: only {supported}")


def _is_observation(space: Space[Any]) -> bool:
    return observation_kind(space) is not None


def _is_action(space: Space[Any]) -> bool:
    if isinstance(space, spaces.Box):
        return space.dtype.kind == "f" and 0 not in space.shape
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)


def same_spaces(a: Space[Any], b: Space[Any]) -> str | None:
    """Return None if a policy made for the space `a` fits `b`, else one sentence why not.

    What is no difference to a policy is none here: a subclass of a space, the order of the keys of
    a Dict, the byte order of a dtype, and whether a size is written as `n` or `[n]`.
    """
    kind = _kind(a)
    if kind is None or kind is not _kind(b):
        if a == b:
            return None
        return f"the kind differs: {describe_space(a)} against {describe_space(b)}."
    if isinstance(a, spaces.Dict) and isinstance(b, spaces.Dict) and set(a) == set(b):
        return _first_difference(a.items(), [b[key] for key in a])
    if isinstance(a, spaces.Tuple) and isinstance(b, spaces.Tuple) and len(a) == len(b):
        return _first_difference(enumerate(a), b)
    if isinstance(a, spaces.Dict | spaces.Tuple):
        return f"the spaces differ: {a} against {b}."
    for attribute, ours, theirs in zip(_ATTRIBUTES, _attributes(a), _attributes(b), strict=True):
        if ours != theirs:
            return f"the {attribute} differs: {ours} against {theirs}."
    # Not by ==, which lets bounds pass that are only close.
    if not _equal(a, b, "low", "high"):
        return f"the bounds differ: {_bounds(a)} against {_bounds(b)}."
    if not _equal(a, b, "nvec", "start"):
        return f"the spaces differ: {a} against {b}."
    return None


_KINDS = (
    spaces.Box,
    spaces.Discrete,
    spaces.MultiDiscrete,
    spaces.MultiBinary,
    spaces.Dict,
    spaces.Tuple,
)
_ATTRIBUTES = ("shape", "dtype", "n", "start")


def _kind(space: Space[Any]) -> type[Space[Any]] | None:
    return next((kind for kind in _KINDS if isinstance(space, kind)), None)


def _attributes(space: Space[Any]) -> tuple[Any, ...]:
    """Return what two spaces of one kind must have in common, written in one way."""
    dtype = None if space.dtype is None else np.dtype(space.dtype).newbyteorder("=")
    one = space if isinstance(space, spaces.Discrete) else None
    numbers = (None, None) if one is None else (int(one.n), int(one.start))
    return (tuple(space.shape or ()), dtype, *numbers)


def _equal(a: Space[Any], b: Space[Any], *names: str) -> bool:
    return all(np.array_equal(getattr(a, name, 0), getattr(b, name, 0)) for name in names)


def _bounds(space: Any) -> str:
    return f"{space.low} to {space.high}"


def _first_difference(
    ours: Iterable[tuple[Any, Space[Any]]], theirs: Iterable[Space[Any]]
) -> str | None:
    for (key, a), b in zip(ours, theirs, strict=True):
        difference = same_spaces(a, b)
        if difference is not None:
            return f"in {key!r}, {difference}"
    return None
