"""Nested spaces as a flat list of leaves, and values of such spaces leaf by leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

Array = NDArray[Any]
ObservationKind = Literal["vector", "image", "discrete", "multi_discrete", "multi_binary"]
Path = tuple[Any, ...]


@dataclass(frozen=True)
class Leaf:
    """A space that holds no other: where it lies in a Dict or Tuple space, and what it is."""

    path: Path
    """Keys of Dict and indices of Tuple spaces from the root; empty for the root itself."""

    space: Space[Any]
    """The leaf's own space."""

    @property
    def name(self) -> str:
        """The path as text, such as `camera` or `pose/0`; empty for the root."""
        return "/".join(map(str, self.path))


def is_nested(space: Space[Any]) -> bool:
    """Return whether the space is a Dict or a Tuple."""
    return isinstance(space, spaces.Dict | spaces.Tuple)


def space_leaves(space: Space[Any], without: str | None = None) -> list[Leaf]:
    """Return the leaves of a space, nested or not, in its own order.

    Args:
        space: of a single environment.
        without: a key of a Dict space at the root that is left out.

    Raises:
        ValueError: two leaves would have the same name.
    """
    leaves = [leaf for leaf in _walk(space, ()) if not leaf.path or leaf.path[0] != without]
    names = [leaf.name for leaf in leaves]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(
            f"{space} has more than one leaf with the path {sorted(twice)[0]!r}: rename a key"
        )
    return leaves


def _walk(space: Space[Any], path: Path) -> Iterator[Leaf]:
    if isinstance(space, spaces.Dict):
        for key, part in space.items():
            yield from _walk(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space):
            yield from _walk(part, (*path, index))
    else:
        yield Leaf(path, space)


def observation_kind(space: Space[Any]) -> ObservationKind | None:
    """Return what an observation's leaf is to a policy; None: nothing that it can take."""
    if isinstance(space, spaces.Box) and space.dtype.kind in "fiub" and 0 not in space.shape:
        is_image = space.dtype == np.uint8 and len(space.shape) in (2, 3)
        return "image" if is_image else "vector"
    if isinstance(space, spaces.Discrete):
        return "discrete"
    if isinstance(space, spaces.MultiDiscrete):
        return "multi_discrete"
    if isinstance(space, spaces.MultiBinary):
        return "multi_binary"
    return None


def choice_range(
    space: Space[Any],
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Return the first and the last choice of a space without parts; None: it is not counted.

    Each is an array of the shape of the space, or one number for all.
    """
    kind = observation_kind(space)
    if kind == "multi_binary":
        return np.asarray(0), np.asarray(1)
    if kind != "discrete" and kind != "multi_discrete":
        return None
    first = np.asarray(getattr(space, "start", 0))
    count: Any = space.n if isinstance(space, spaces.Discrete) else getattr(space, "nvec", 1)
    return first, first + (np.asarray(count) - 1).astype(first.dtype)


def outside_choices(
    values: np.ndarray[Any, Any], first: np.ndarray[Any, Any], last: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return where numbers `[..., *shape]` are none of the choices from `first` to `last`."""
    outside: np.ndarray[Any, Any] = (values < first) | (values > last)
    if values.dtype.kind == "f":
        outside |= values != values.round()  # which NaN is too
    return outside


def exceeds_float32(space: Space[Any]) -> bool:
    """Return whether the dtype of a space without parts holds numbers that float32 would round."""
    return space.dtype is not None and not np.can_cast(space.dtype, np.float32)


def take(value: Any, path: Path) -> Any:
    """Return the part of a value of a nested space that lies at `path`.

    Raises:
        ValueError: the value has no such part.
    """
    for depth, key in enumerate(path):
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            has = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            raise ValueError(
                f"there is no part {'/'.join(map(str, path[: depth + 1]))!r} in a value with {has}"
            ) from error
    return value


def map_leaves(call: Callable[[Any], Any], value: Any) -> Any:
    """Return a value of dicts and tuples with `call` applied to each leaf."""
    if isinstance(value, Mapping):
        return {key: map_leaves(call, part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map_leaves(call, part) for part in value)
    return call(value)


def row_of(value: Any, row: int) -> Any:
    """Return the part of one environment, by its row, of a batch of NumPy actions, nested or not.

    Choices become NumPy's integers, which can be hashed and used as indices. A single number stays
    an array, as a Box without axes has it.
    """
    return map_leaves(lambda one: one[row, ...] if one.dtype.kind == "f" else one[row], value)


def stack_values(space: Space[Any], values: Sequence[Any]) -> Any:
    """Return values of single environments as one batch: every leaf gets an axis in front.

    Arrays get the type of their space, as in Gymnasium's vectors.
    """
    if isinstance(space, spaces.Dict):
        return {
            key: stack_values(part, [value[key] for value in values]) for key, part in space.items()
        }
    if isinstance(space, spaces.Tuple):
        return tuple(
            stack_values(part, [value[index] for value in values])
            for index, part in enumerate(space)
        )
    dtype = None if space.dtype is None else space.dtype.newbyteorder("=")
    return np.stack(values, dtype=dtype, casting="same_kind")


def build(space: Space[Any], parts: Iterator[Any]) -> Any:
    """Return a value of a space, nested like it, from its leaves in the order of `space_leaves`."""
    if isinstance(space, spaces.Dict):
        return {key: build(part, parts) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(build(part, parts) for part in space)
    return next(parts)
