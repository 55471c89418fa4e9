"""What an environment was made with, to tell it from another of the same class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from xlstm_rl.envs.snapshots.encode import take_snapshot
from xlstm_rl.envs.snapshots.graph import SCALARS, SnapshotError

_MOST = 10_000
"""Values that are kept; those behind them tell nothing."""


def values_as_made(root: Any) -> dict[str, Any]:
    """Return the numbers, texts and switches in the attributes of an environment, by their path.

    Before its first reset these are what it was made with: `.length` 64. Arrays may be memory that
    nothing has written yet, and random generators start anew: they are left out. So are names
    with `seed` in them.

    Args:
        root: such as a vector environment that was never reset. One that cannot hand over its
            state has no values.
    """
    try:
        snapshot = take_snapshot(root)
    except SnapshotError:
        return {}
    found = {}
    for path, value in _values(json.loads(snapshot["structure"]), ""):
        found[path] = value
        if len(found) == _MOST:
            break
    return found


def difference(before: Any, now: dict[str, Any]) -> str | None:
    """Return the first value that two environments do not share, in words; None: all are equal.

    What only one of them has tells nothing: another class, or another vector form.

    Args:
        before: of `values_as_made`, from a checkpoint that may be damaged.
        now: the same, of the environment that shall go on.
    """
    if not isinstance(before, dict):
        return "what the environments were made with is damaged"
    for path, value in now.items():
        if path in before and before[path] != value:
            name = path.removeprefix(".")
            return f"the environments are others: {name} was {before[path]!r}, is {value!r}"
    return None


def _values(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the values below a node of a snapshot (`encode`)."""
    if node is None or type(node) in SCALARS:
        if "seed" not in path.rpartition(".")[2] and node == node:  # nan differs from itself
            yield path, node
        return
    tag, *parts = node
    if tag == "tuple":
        yield from _items(parts[0], path)
    elif tag in ("list", "deque"):
        yield from _items(parts[1], path)
    elif tag in ("dict", "OrderedDict", "defaultdict"):
        yield from _dict(parts[1], path)
    elif tag == "object":
        for name, one in parts[2]:
            yield from _values(one, f"{path}.{name}")
    elif tag == "own":
        yield from _values(parts[1], path)


def _items(nodes: list[Any], path: str) -> Iterator[tuple[str, Any]]:
    for index, one in enumerate(nodes):
        yield from _values(one, f"{path}[{index}]")


def _dict(items: list[Any], path: str) -> Iterator[tuple[str, Any]]:
    named = {key: one for key, one in items if type(key) in SCALARS}
    if named.keys() == {"structure", "arrays"}:  # a snapshot, from the process of an environment
        yield from _values(json.loads(named["structure"]), path)
        return
    for key, one in named.items():
        yield from _values(one, f"{path}[{key!r}]")
