"""What stands in the infos of vector environments, in all the forms that these have had."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_rl.collection.answers import Array, BoolArray, as_array
from xlstm_rl.envs.faults.error_context import describe_answer, wrong_observation
from xlstm_rl.envs.faults.infos import merge_info
from xlstm_rl.envs.faults.restarting import BROKEN
from xlstm_rl.envs.spaces.leaves import Leaf, take

Info = dict[str, Any]

SUCCESS = "is_success"
"""The key under which many environments say at an episode's end whether the goal was reached."""

_FINAL_NAMES = ("final_obs", "final_observation", "terminal_observation")
"""Gymnasium's name since 1.0, the one before it, and the one in older lists of infos."""


def read_info(info: Any, rows: int) -> Info:
    """Return the info of a vector; a list with one for each environment is merged.

    Raises:
        ValueError: it is neither.
    """
    if type(info) is dict:
        return info
    if info is None:
        return {}
    if isinstance(info, Mapping):
        return dict(info)
    is_list = isinstance(info, Sequence | np.ndarray) and not isinstance(info, str)
    if is_list and len(info) == rows and all(isinstance(one, Mapping) for one in info):
        merged: Info = {}
        for row, one in enumerate(info):
            merge_info(merged, one, row, rows)
        return merged
    raise ValueError(
        f"info is {describe_answer(info)}, expected a dict of arrays, or a list of {rows} dicts"
    )


def marked(info: Info, key: str, rows: int) -> BoolArray:
    """Return which environments have `info[key]`: those of `_key`, and without it all of them."""
    try:
        mask = np.asarray(info.get(f"_{key}"))
    except (TypeError, ValueError, RuntimeError):
        mask = np.empty(0)  # somebody's value, which only looks like a mask by its name
    if mask.shape == (rows,) and mask.dtype.kind in "biu":
        return mask.astype(np.bool_)
    value = info[key]
    if isinstance(value, np.ndarray) and value.dtype == object and value.shape == (rows,):
        return np.array([one is not None for one in value])
    return np.ones(rows, dtype=np.bool_)


def only_rows(info: Info, rows: BoolArray) -> Info:
    """Return an info that holds for some environments alone."""
    masks = {}
    for name in info:
        if not (isinstance(name, str) and name[:1] == "_" and name[1:] in info):
            masks[f"_{name}"] = marked(info, name, len(rows)) & rows
    return {**info, **masks}


def final_name(info: Info) -> str | None:
    """Return the key of the last observations of episodes, None where there are none."""
    return next((name for name in _FINAL_NAMES if name in info), None)


def final_observations(
    info: Info, rows: NDArray[np.int64], leaves: Sequence[Leaf], num_envs: int
) -> list[Array]:
    """Return the last observations of episodes that were cut, `[N, ...]` for each leaf.

    Args:
        info: of the step in SAME_STEP mode; observations of single environments by their number, or
            arrays `[B, ...]` in a nesting like that of the space.
        rows: `[N]`, the environments.
        leaves: of the observation space of one environment.
        num_envs: B.

    Raises:
        ValueError: one is missing, or is not in the space; named is its environment.
    """
    name = final_name(info)
    if name is None:
        raise ValueError(
            f"info has no 'final_obs', the last observation of the truncated environment "
            f"{rows[0]}: where autoreset_mode is SAME_STEP, put it there, or set another mode"
        )
    found, has = info[name], marked(info, name, num_envs)[rows]
    if not has.all():
        raise ValueError(
            f"info[{name!r}] has nothing of environment {rows[~has][0]}, which was truncated"
        )
    return [_final_leaf(found, name, rows, leaf) for leaf in leaves]


def _final_leaf(found: Any, name: str, rows: NDArray[np.int64], leaf: Leaf) -> Array:
    what = f"info[{name!r}]{f' at {leaf.name!r}' if leaf.path else ''}"
    if leaf.path and isinstance(found, Mapping | tuple):
        values = as_array(take(found, leaf.path), what)[rows]
    else:
        parts = [as_array(take(found[row], leaf.path), what) for row in rows.tolist()]
        shapes = {part.shape for part in parts}
        if len(shapes) > 1:
            raise ValueError(f"{what} has shapes {sorted(map(list, shapes))}, expected one shape")
        values = np.stack(parts)
    wrong = wrong_observation(leaf, values, len(rows))
    if wrong is not None:
        row = rows[wrong[0]] if wrong[0] is not None else rows[0]
        raise ValueError(f"environment {row}: in info[{name!r}], {wrong[1]}")
    return values


def broken_episodes(info: Info, ended: BoolArray) -> BoolArray | None:
    """Return which of the episodes that ended `[B]` were broken by an error; None: none."""
    holder = of_last_step(info, BROKEN)
    return marked(holder, BROKEN, len(ended)) & ended if BROKEN in holder else None


def successes(info: Info, ended: BoolArray, is_of_reset: bool = False) -> Array | None:
    """Return what was said of the success of episodes that ended, `[B]`, as `numbers_at_end`."""
    return numbers_at_end(info, ended, SUCCESS, success_of, is_of_reset)


def numbers_at_end(
    info: Info,
    ended: BoolArray,
    key: str,
    read: Callable[[Any], float],
    is_of_reset: bool = False,
) -> Array | None:
    """Return what was said under a key of episodes that ended, `[B]`, NaN where nothing was.

    Args:
        info: of the step that ended them.
        ended: `[B]`.
        key: of the info.
        read: makes a number of what one environment said, or NaN.
        is_of_reset: what stands beside `final_info` was said by the reset that followed, as in
            Gymnasium's own vectors.

    Returns:
        None where no environment says anything, or nothing that is a number.
    """
    holder = of_last_step(info, key)
    is_beside = holder is info and "final_info" in info and f"_{key}" in info
    if key not in holder or (is_of_reset and is_beside):
        return None
    found, value = np.full(len(ended), np.nan), holder[key]
    try:
        for row in np.flatnonzero(marked(holder, key, len(ended)) & ended):
            found[row] = read(value[row])
    except (TypeError, IndexError, KeyError):
        return None
    return found


def of_last_step(info: Info, key: str) -> Info:
    """Return the info that holds what was said of an episode's last step.

    Where a vector resets in the same step, that is `final_info`: a dict of arrays, or before
    Gymnasium 1.0 one dict for each environment.
    """
    final = info.get("final_info")
    if isinstance(final, list | np.ndarray):
        rows = [one if isinstance(one, Mapping) else {} for one in final]
        final = read_info(rows, len(rows)) if any(rows) else {}
    return final if isinstance(final, dict) and key in final else info


def keys_of_last_step(info: Info) -> set[str]:
    """Return under which keys anything is said of an episode's last step, without masks."""
    final = info.get("final_info")
    if isinstance(final, list | np.ndarray):
        found = {key for one in final if isinstance(one, Mapping) for key in one}
    elif isinstance(final, dict):
        found = set(final)
    else:
        found = set(info) - set(_FINAL_NAMES)
    names = {key for key in found if isinstance(key, str)}
    return {key for key in names if not (key[:1] == "_" and key[1:] in names) and key != BROKEN}


def success_of(value: Any) -> float:
    """Return what one episode said of its success, from 0 to 1; NaN where that is not plain.

    Args:
        value: a bool or a number, also in an array of one.
    """
    number = number_of(value)
    return number if 0.0 <= number <= 1.0 else np.nan


def number_of(value: Any) -> float:
    """Return the number that a value stands for: a bool's, or one in an array of one; else NaN."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return np.nan
    if array.size != 1 or array.dtype.kind not in "fiub":
        return np.nan
    return float(array.reshape(()))
