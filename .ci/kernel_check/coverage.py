"""Which entries of a table of tiles were looked up while launches were recorded.

A module of tiles has them in ``TABLE``, or in several dicts whose names end in ``TABLE``: dicts in
dicts, however deep, that its functions read with ``TABLE[...][...]``. What is no dict is an entry.
The names of device classes are among the keys.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

Path = tuple[Any, ...]


class Watched(dict[Any, Any]):
    """A table that notes the entries that are looked up in it."""

    def __init__(self, table: dict[Any, Any], path: Path = (), met: set[Path] | None = None):
        self.path = path
        self.met = set() if met is None else met
        super().__init__(
            (key, Watched(value, (*path, key), self.met) if isinstance(value, dict) else value)
            for key, value in table.items()
        )

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        if not isinstance(value, Watched):
            self.met.add((*self.path, key))
        return value

    def entries(self) -> Iterator[Path]:
        """Return the way to every entry, met or not."""
        for key, value in self.items():
            if isinstance(value, Watched):
                yield from value.entries()
            else:
                yield (*self.path, key)


def watch(tiles: ModuleType) -> Watched:
    """Put tables that take notes in the place of those of ``tiles``; return them by their names."""
    found = {n: v for n, v in vars(tiles).items() if n.endswith("TABLE")}
    tables = {name: table for name, table in found.items() if isinstance(table, dict)}
    if not tables:
        raise TypeError(f"{tiles.__name__} has no dict whose name ends in TABLE")
    watched = Watched(tables)
    vars(tiles).update(watched)
    return watched


def never_met(watched: Watched, left_out: set[str]) -> list[str]:
    """Return the entries that nothing asked for, but those of classes that were left out."""
    missed = [path for path in watched.entries() if path not in watched.met]
    return [str(path) for path in map(_flat, missed) if not left_out.intersection(path)]


def _flat(path: Path) -> Path:
    """The keys of a path, those that are tuples taken apart."""
    return sum((key if isinstance(key, tuple) else (key,) for key in path), ())
