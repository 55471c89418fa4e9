"""Infos of single environments, whatever is in them, merged into the info of a vector."""

from __future__ import annotations

from typing import Any

import numpy as np

RESERVED = ("final_obs", "final_info")
"""Keys under which a vector hands on what ended an episode; no environment may use them."""


class AnyInfo:
    """Lets the environments of one of Gymnasium's vectors put anything into their infos.

    Gymnasium's own way of merging fails where two environments have different kinds of values
    under one key, and cuts some of them off: 0.5 beside 0, "long" beside "no".
    """

    num_envs: int

    def _add_info(self, vector_infos: Any, env_info: Any, env_num: int) -> Any:
        return merge_info(vector_infos, env_info, env_num, self.num_envs)


def merge_info(infos: dict[Any, Any], info: dict[Any, Any], row: int, rows: int) -> dict[Any, Any]:
    """Merge the info of one environment into that of a vector, as Gymnasium does, and return it.

    Each key gets an array `[B, ...]` and its mask `_key`, a dict gets a dict of such arrays. Values
    of different kinds become an array of objects. Where one key is the mask's name of another, the
    mask has the name.

    Args:
        infos: of the vector so far; written to.
        info: of one environment.
        row: its number.
        rows: B.
    """
    for key, value in info.items():
        if isinstance(key, str) and key[:1] == "_" and key[1:] in infos:
            continue  # the mask of another key has this name
        name = f"_{key}"
        mask = infos.get(name)
        if mask is not None and key not in infos and infos.pop(f"_{name}", None) is not None:
            mask = None  # what stood there was somebody's value, with a mask of its own
        if mask is None:
            mask = np.zeros(rows, dtype=np.bool_)
        if key == "final_obs":
            merged = infos.get(key)
            if merged is None:
                merged = np.full(rows, None, dtype=object)
            merged[row] = value
        else:
            merged = _merged(infos.get(key), mask, value, row)
        mask[row] = True
        infos[key], infos[name] = merged, mask
    return infos


def _merged(old: Any, mask: np.ndarray[Any, Any], value: Any, row: int) -> Any:
    """Return `old`, what the environments of `mask` have under a key, with the value of another."""
    rows = len(mask)
    if isinstance(value, dict) and (old is None or isinstance(old, dict)):
        return merge_info({} if old is None else old, value, row, rows)
    new = _as_array(value)
    if new is not None and old is None:
        old = np.zeros((rows, *new.shape), dtype=new.dtype)
    if new is not None and isinstance(old, np.ndarray) and old.shape[1:] == new.shape:
        if old.dtype == new.dtype:
            old[row] = new
            return old
        if old.dtype != object:
            try:
                old = old.astype(np.promote_types(old.dtype, new.dtype))
            except TypeError:
                old = _as_objects(old, mask)
            old[row] = value
            return old
    old = _as_objects(old, mask)
    old[row] = value
    return old


def _as_array(value: Any) -> np.ndarray[Any, Any] | None:
    """Return an array of a number or an array, None of all else."""
    if isinstance(value, np.ndarray):
        return None if value.dtype == object else value
    if type(value) in (int, float, bool) or isinstance(value, np.number):
        number = np.asarray(value)
        return None if number.dtype == object else number  # an int beyond 64 bits
    return None


def _as_objects(old: Any, mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what environments have under a key as an array of objects `[B]`."""
    if isinstance(old, np.ndarray) and old.dtype == object and old.ndim == 1:
        return old
    objects = np.full(len(mask), None, dtype=object)
    if old is None:
        return objects
    for row in np.flatnonzero(mask):
        objects[row] = _of_row(old, row)
    return objects


def _of_row(old: Any, row: Any) -> Any:
    if not isinstance(old, dict):
        return old[row]
    masks = {f"_{key}": key for key in old if f"_{key}" in old}
    return {key: _of_row(old[key], row) for name, key in masks.items() if old[name][row]}
