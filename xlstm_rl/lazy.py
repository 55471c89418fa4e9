"""Packages that hand out their names without importing what stands behind all of them."""

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any


def lazy_names(package: str, names: Iterable[str], modules: Iterable[str]) -> Callable[[str], Any]:
    """A `__getattr__` for a package that finds its public names on first use.

    Args:
        package: The package's `__name__`.
        names: Its public names.
        modules: The modules in it that define them, looked through in this order: those that are
            imported in no time first.
    """
    known = set(names)

    def find(name: str) -> Any:
        if name in known:
            for module in modules:
                found = getattr(import_module(f"{package}.{module}"), name, None)
                if found is not None:
                    setattr(sys.modules[package], name, found)
                    return found
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
