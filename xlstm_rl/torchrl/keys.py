"""The keys of a recurrent module, checked, and those that it has where the caller names none."""

from collections.abc import Sequence
from typing import Any

from tensordict import NestedKey, unravel_key

from xlstm_rl.options.arguments import did_you_mean

STATE_KEY, INIT_KEY = "recurrent_state", "is_init"
"""The keys of the state and of episode starts, where the caller names none."""


def check_key(given: str, key: Any) -> NestedKey:
    """Return a key of a tensordict, nested ones as a flat tuple; `given` begins an error.

    Raises:
        TypeError: it is neither a str nor a tuple of them, or empty.
    """
    if not _is_key(key):
        raise TypeError(f"{given}: expected a key, a str or a tuple of them")
    found: NestedKey = unravel_key(key)
    return found


def check_flag(name: str, value: Any, expected: str = "True or False") -> bool:
    """Return a flag.

    Raises:
        TypeError: it is neither True nor False.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected {expected}")
    return value


def check_choice(name: str, value: Any, choices: Sequence[str]) -> Any:
    """Return a word.

    Raises:
        ValueError: it is none of the choices.
    """
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise ValueError(
            f"{name}={value!r}: expected one of {known}{did_you_mean(str(value), choices)}"
        )
    return value


def check_distinct(given: str, keys: list[NestedKey]) -> list[NestedKey]:
    """Return keys.

    Raises:
        ValueError: one stands there twice.
    """
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{given}, {keys!r}: {key!r} stands there twice, expected other keys")
    return keys


def choose_in_keys(key: NestedKey | None, keys: Sequence[NestedKey] | None) -> list[NestedKey]:
    """Return the keys of input, state and episode starts from one of both arguments.

    Raises:
        ValueError: both are given or none, or there are too few or too many keys, or one twice.
        TypeError: they are no keys.
    """
    found = _choose("in", key, keys, STATE_KEY)
    if len(found) not in (2, 3):
        raise ValueError(
            f"in_keys={keys!r} has {len(found)} keys, expected those of input, state, and "
            "(optionally) episode starts"
        )
    return check_distinct("in_keys", [*found, INIT_KEY][:3])


def choose_out_keys(
    key: NestedKey | None, keys: Sequence[NestedKey] | None, in_keys: list[NestedKey]
) -> list[NestedKey]:
    """Return the keys of output and state after from one of both arguments.

    Raises:
        ValueError: as for `choose_in_keys`, or a key would overwrite what the next call reads.
        TypeError: they are no keys.
    """
    found = _choose("out", key, keys, ("next", STATE_KEY))
    if len(found) != 2:
        raise ValueError(
            f"out_keys={keys!r} has {len(found)} keys, expected those of output and state after"
        )
    _, state, init = in_keys
    for one, taken in ((found[0], (state, init)), (found[1], (init,))):
        if one in taken:
            raise ValueError(
                f"out_keys={found!r}: {one!r} would be overwritten, which is an input: "
                "choose another key"
            )
    return check_distinct("out_keys", found)


def _choose(
    side: str, key: NestedKey | None, keys: Sequence[NestedKey] | None, state_key: NestedKey
) -> list[NestedKey]:
    if (key is None) == (keys is None):
        raise ValueError(
            f"{side}_key={key!r} and {side}_keys={keys!r}: expected one of them, and not both"
        )
    if keys is None:
        return [check_key(f"{side}_key={key!r}", key), state_key]
    if not isinstance(keys, list | tuple):
        raise TypeError(f"{side}_keys={keys!r}: expected a list of keys")
    return [check_key(f"{side}_keys={keys!r} has {one!r}", one) for one in keys]


def _is_key(key: Any) -> bool:
    if isinstance(key, tuple):
        return bool(key) and all(map(_is_key, key))
    return isinstance(key, str) and bool(key)
