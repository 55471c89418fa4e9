"""Checks that the arguments of our environments and wrappers share."""

from __future__ import annotations

from typing import Any

import numpy as np

from xlstm_rl.options import arguments


def check_whole(owner: str, minimum: int = 1, **values: object) -> list[int]:
    """Return arguments as integers, whatever type of number they came as.

    Raises:
        ValueError: A value is not an integer >= `minimum`; names it and its owner.
    """
    return [
        arguments.check_whole(f"{owner}.{name}", value, minimum) for name, value in values.items()
    ]


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
