"""Reading what a user gave: numbers of any type, names nearly right, paths from home.

It stands below everything else and imports nothing, so that kernels and environments, which know
neither each other nor the core, need no copy of it.
"""

import difflib
from collections.abc import Iterable
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any


def whole_number(value: Any) -> int | None:
    """The integer that a number of any type stands for; None where it stands for none.

    Python's, NumPy's and torch's numbers count, and floats without a fraction such as `1e5`;
    truth values do not.
    """
    number = plain_number(value)
    try:
        whole = None if number is None else int(number)
    except (ValueError, OverflowError):  # nan, inf
        return None
    return whole if whole == number else None


def plain_number(value: Any) -> int | float | None:
    """Python's own int or float of a number of any type; None for anything else, bools too."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # NumPy, torch
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    return int(value) if isinstance(value, int) else float(value)


def check_whole(name: str, value: Any, minimum: int, error: type[ValueError] = ValueError) -> int:
    """An integer of at least `minimum`, from a number of any type.

    Raises:
        ValueError: It is something else; of the class `error`.
    """
    whole = whole_number(value)
    if whole is None or whole < minimum:
        raise error(f"{name}={value!r}: expected an integer >= {minimum}")
    return whole


def close_names(name: str, known: Iterable[str], n: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names most like a name, at most `n`; case does not count."""
    lowered = {full.lower(): full for full in reversed(list(known))}
    return [lowered[one] for one in difflib.get_close_matches(name.lower(), lowered, n, cutoff)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` where something known is close to `name`, else an empty string.

    The last part of a dotted name counts first: `num_envs` and `agent.num_envs` both suggest
    `env.num_envs`.
    """
    known = list(known)
    tails: dict[str, list[str]] = {}
    for full in known:
        tails.setdefault(_tail(full), []).append(full)
    close = close_names(name, tails.get(_tail(name), []), cutoff=0.0) or close_names(name, known)
    close = close or [tails[word][0] for word in close_names(_tail(name), tails)]
    return f"; did you mean {close[0]}?" if close else ""


def _tail(name: str) -> str:
    return name.rpartition(".")[2].lower()


def user_path(path: str | Path) -> Path:
    """A path in which a leading `~` is the user's home."""
    return Path(path).expanduser()
