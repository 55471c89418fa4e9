"""Checks that the arguments of our environments and wrappers share."""

from __future__ import annotations

from typing import Any

import numpy as np


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


def json_form(value: Any) -> Any:
    """Return an argument as JSON gives it back: lists for tuples and arrays, Python's numbers.

    Gymnasium compares a wrapper's recorded arguments with those in an `EnvSpec`, which may have
    come from a file.
    """
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [json_form(item) for item in value]
    return value
