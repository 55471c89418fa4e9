"""What a policy was trained on, where that was no id."""

from collections.abc import Callable
from functools import partial
from typing import Any


class TrainedOn:
    """Remembers a callable in the process of the training; files and other processes lack it.

    Args:
        make: the callable that made the environments, or the ready vector of them; None: not known.
    """

    def __init__(self, make: object | None = None) -> None:
        self._make = make

    @property
    def callable(self) -> Callable[..., Any] | None:
        """What makes one environment, where it is known."""
        return self._make if callable(self._make) else None

    def is_other(self, make: Callable[..., Any]) -> bool:
        """Return whether a callable is known not to be the one of the training."""
        return self._make is not None and not _are_same(self._make, make)

    def __reduce__(self) -> tuple[type["TrainedOn"], tuple[()]]:
        # many callables cannot be pickled, and a policy can
        return TrainedOn, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "TrainedOn":
        return self


def _are_same(one: Any, other: Any) -> bool:
    """Return whether two callables are one; methods and partials are new objects at each look."""
    if one is other:
        return True
    if isinstance(one, partial) and isinstance(other, partial):
        return (
            _are_same(one.func, other.func)
            and _are_equal(one.args, other.args)
            and _are_equal(one.keywords, other.keywords)
        )
    return _are_equal(one, other)


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except ValueError:  # arrays among them: more than one truth
        return False
