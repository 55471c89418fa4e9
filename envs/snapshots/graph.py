"""What an environment is made of: values, random generators, objects, and what cannot be copied."""

from __future__ import annotations

import functools
import logging
import re
import types
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import PurePath
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec


class SnapshotError(ValueError):
    """An environment cannot hand over its state, or take one over; the message says why."""


trusting: ContextVar[bool] = ContextVar("trusting", default=False)
"""Whether the state that is being taken over may hold what was pickled."""

SCALARS = (bool, int, float, str)
BIT_GENERATORS = {
    one.__name__: one
    for one in (
        np.random.PCG64,
        np.random.PCG64DXSM,
        np.random.MT19937,
        np.random.Philox,
        np.random.SFC64,
    )
}

_CODE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodWrapperType,
    types.ModuleType,
    functools.partial,
    type,
    np.ufunc,
    logging.Logger,
    property,
)
_NAMED = (np.dtype, torch.dtype, torch.device, range, slice, PurePath, re.Pattern)
_OUTSIDE = {"_thread", "asyncio", "concurrent", "ctypes", "multiprocessing", "socket"}
_OUTSIDE |= {"_ctypes", "subprocess", "threading"}
"""Packages of objects that stand for something outside of the interpreter."""

_SPACE_STATE = ("_np_random", "spaces", "feature_space", "node_space", "edge_space")
_PLAIN_SIZE = object.__basicsize__ + 2 * np.dtype(np.intp).itemsize  # and a dict, and weakrefs


def constant_name(value: Any) -> str | None:
    """Return what names a value that no step changes, such as a function; None: it is no such."""
    if isinstance(value, _NAMED) or value is Ellipsis or value is NotImplemented:
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, EnvSpec):
        return f"EnvSpec {value.id}"
    if isinstance(value, _CODE):
        module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
        return f"{type(value).__name__} {module}.{name or getattr(value, '__name__', '')}"
    return None


def class_name(cls: type) -> str:
    """Return `module:qualified name` of a class."""
    return f"{getattr(cls, '__module__', None)}:{cls.__qualname__}"


def is_plain(value: Any) -> bool:
    """Return whether an object's `__dict__` is all of its state."""
    cls = type(value)
    package = str(getattr(cls, "__module__", "")).partition(".")[0]
    if package in _OUTSIDE or not hasattr(value, "__dict__"):
        return False
    if cls.__basicsize__ > _PLAIN_SIZE or cls.__itemsize__:
        return False  # there is more behind it, in C
    return not any(_slots(base) or _makes_in_c(base) for base in cls.__mro__[:-1])


def _slots(cls: type) -> bool:
    slots = vars(cls).get("__slots__", ())
    return bool({slots} if isinstance(slots, str) else {*slots} - {"__dict__", "__weakref__"})


def _makes_in_c(cls: type) -> bool:
    return "__new__" in vars(cls) and not isinstance(vars(cls)["__new__"], staticmethod)


def has_own_form(value: Any) -> bool:
    """Return whether an object hands over its state itself, by `state_dict`."""
    cls = type(value)
    return callable(getattr(cls, "state_dict", None)) and callable(
        getattr(cls, "load_state_dict", None)
    )


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of a plain object that belong to its state.

    Of a space that is its random generator: all else is constant, and may be large.
    """
    found = vars(value)
    if isinstance(value, gym.Space):
        return {name: found[name] for name in _SPACE_STATE if name in found}
    return {name: one for name, one in found.items() if not isinstance(one, EnvSpec)}


def classes_in(root: Any) -> dict[str, type]:
    """Return the classes of the plain objects that can be reached from one, by their names."""
    return {class_name(type(one)): type(one) for one in _reachable(root) if is_plain(one)}


def _reachable(root: Any) -> Iterator[Any]:
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if value is None or type(value) in SCALARS or id(value) in seen:
            continue
        seen.add(id(value))
        if constant_name(value) is not None:
            continue
        yield value
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
        elif is_plain(value) and not has_own_form(value):
            waiting += attributes(value).values()
