"""Checks that the arguments of our environments and wrappers share."""

from __future__ import annotations


def check_whole(owner: str, minimum: int = 1, **values: object) -> None:
    """Refuse values that are no whole number of at least `minimum`.

    Raises:
        ValueError: Names the argument, its owner and what came.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ValueError(
                f"{name} of {owner} is {value!r}, expected a whole number of at least {minimum}"
            )
