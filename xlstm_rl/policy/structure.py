"""Whether a network is still the one that something was built for."""

from collections.abc import Iterable
from typing import Any

from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = [getattr(nn.modules.module, f"_global{name}") for name in _HOOKS]

_Entry = tuple[dict[str, Any], str, Any]


class Structure:
    """Modules, and what stood in them: a look at it costs a few microseconds.

    Args:
        modules: of them nobody may exchange a child.
        weights: of these modules nobody may exchange a weight either.
    """

    def __init__(self, modules: Iterable[nn.Module], weights: Iterable[nn.Module] = ()) -> None:
        modules = list(modules)
        self._hooks = [getattr(one, name) for one in modules for name in _HOOKS]
        self._own = [vars(one) for one in modules]
        self._entries: list[_Entry] = [
            (one._modules, name, child) for one in modules for name, child in one._modules.items()
        ]
        self._entries += [
            (one._parameters, name, weight)
            for one in weights
            for name, weight in one._parameters.items()
        ]

    def stands(self) -> bool:
        """Whether every child and every weight is where it was."""
        return all([owner.get(name) is one for owner, name, one in self._entries])

    def is_watched(self, method: str) -> bool:
        """Whether somebody wants to see what goes through a module, or has a method of his own."""
        return any(self._hooks) or any([method in own for own in self._own])


def is_own(instance: object, kind: type, *methods: str) -> bool:
    """Whether methods are those of a class: no subclass has another, and no instance either."""
    return all(
        [getattr(getattr(instance, one), "__func__", None) is getattr(kind, one) for one in methods]
    )


def is_watched(module: nn.Module) -> bool:
    """Whether somebody wants to see what goes through a module."""
    return any([getattr(module, name) for name in _HOOKS])


def watched_everywhere() -> bool:
    """Whether somebody wants to see what goes through all modules."""
    return any(_GLOBAL_HOOKS)
