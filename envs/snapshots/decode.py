"""From plain data into an environment that was made anew."""

from __future__ import annotations

import inspect
import json
import pickle
import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from enum import Enum
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from torch import Tensor

from xlstm_rl.envs.snapshots.encode import Snapshot
from xlstm_rl.envs.snapshots.graph import (
    BIT_GENERATORS,
    SCALARS,
    SnapshotError,
    class_name,
    classes_in,
    constant_name,
    has_own_form,
    trusting,
)

_NOTHING: Any = object()
_CONTAINERS: dict[str, Callable[[], Any]] = {
    "list": list,
    "set": set,
    "dict": dict,
    "OrderedDict": OrderedDict,
    "defaultdict": defaultdict,
}


def restore_snapshot(root: Any, snapshot: Snapshot, trust: bool = False) -> None:
    """Bring an object that was made as the one of a snapshot was into its state.

    A snapshot from elsewhere runs no code: it fills the attributes of objects that are there, and
    makes others only of the classes of these, without a call of theirs. Functions come from the
    object, and must be those of the snapshot.

    Args:
        root: such as a vector environment, after its first reset.
        snapshot: of `take_snapshot`.
        trust: also read what was pickled, which may run anything.

    Raises:
        SnapshotError: it does not fit, or is damaged. Unless an object's own `load_state_dict`
            refused its part, nothing was changed.
    """
    token = trusting.set(trust)
    try:
        decoder = _Decoder(root, snapshot["arrays"], trust)
        decoder.decode(json.loads(snapshot["structure"]), root)
        for commit in decoder.commits:
            commit()
    except SnapshotError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise SnapshotError(f"the state does not fit, or is damaged ({what})") from error
    finally:
        trusting.reset(token)


def read_snapshot(snapshot: Snapshot) -> Any:
    """Return the value of a snapshot of plain values, arrays and tensors; nothing can run in it.

    Raises:
        SnapshotError: it holds something else, or is damaged.
    """
    try:
        decoder = _Decoder(None, snapshot["arrays"], trust=False)
        return decoder.decode(json.loads(snapshot["structure"]), _NOTHING)
    except SnapshotError:
        raise
    except Exception as error:
        raise SnapshotError(f"it is damaged ({type(error).__name__}: {error})") from error


class _Decoder:
    def __init__(self, root: Any, buffer: bytes, trust: bool) -> None:
        self.commits: list[Callable[[], object]] = []
        self._root, self._buffer, self._trust = root, buffer, trust
        self._made: dict[int, Any] = {}
        self._taken: set[int] = set()
        self._classes: dict[str, type] | None = None

    def decode(self, node: Any, fresh: Any) -> Any:
        """Return the value of a node; `fresh` stands in its place in the object made anew."""
        if node is None or type(node) in SCALARS:
            return node
        tag, *parts = node
        immutable = getattr(self, f"_{tag}", None) if tag in _IMMUTABLE else None
        if immutable is not None:
            return immutable(fresh, *parts)
        number, *parts = parts
        if tag in _CONTAINERS:
            return self._container(tag, number, fresh, *parts)
        if tag == "object":
            return self._object(number, fresh, *parts)
        if tag not in _NUMBERED:
            raise SnapshotError(f"the state is damaged: nothing is called {tag!r} in it")
        made = getattr(self, f"_{tag}")(fresh, *parts)
        self._made[number] = made
        return made

    def _same(self, fresh: Any, number: int) -> Any:
        return self._made[number]

    def _tuple(self, fresh: Any, nodes: list[Any]) -> Any:
        return tuple(self._items(nodes, fresh))

    def _enum(self, fresh: Any, name: str) -> Any:
        if not isinstance(fresh, Enum):
            raise SnapshotError(f"it had {name!r} of an enumeration, where this one has none")
        return type(fresh)[name]

    def _scalar(self, fresh: Any, dtype: Any, shape: list[int], place: list[int]) -> Any:
        return self._read_array(dtype, shape, place)[()]

    def _bytes(self, fresh: Any, start: int, size: int) -> bytes:
        return self._read(start, size)

    def _complex(self, fresh: Any, real: float, imaginary: float) -> complex:
        return complex(real, imaginary)

    def _constant(self, fresh: Any, name: str) -> Any:
        found = None if fresh is _NOTHING else constant_name(fresh)
        if found != name:
            raise SnapshotError(f"it had {name}, where this one has {found or 'something else'}")
        return fresh

    def _container(
        self, tag: str, number: int, fresh: Any, nodes: list[Any], factory: Any = None
    ) -> Any:
        made = self._made[number] = _CONTAINERS[tag]()
        if tag == "set":
            made.update(self._items(nodes, _NOTHING))
        elif tag == "list":
            made += self._items(nodes, fresh)
        else:
            if factory is not None:
                made.default_factory = self.decode(factory, getattr(fresh, "default_factory", None))
            known = fresh if isinstance(fresh, dict) else {}
            for key_node, one in nodes:
                key = self.decode(key_node, _NOTHING)
                made[key] = self.decode(one, known.get(key, _NOTHING))
        return made

    def _items(self, nodes: list[Any], fresh: Any) -> list[Any]:
        known = list(fresh) if isinstance(fresh, list | tuple | deque) else []
        known += [_NOTHING] * (len(nodes) - len(known))
        return [self.decode(one, known[index]) for index, one in enumerate(nodes)]

    def _frozenset(self, fresh: Any, nodes: list[Any]) -> Any:
        return frozenset(self._items(nodes, _NOTHING))

    def _deque(self, fresh: Any, nodes: list[Any], limit: int | None) -> Any:
        return deque(self._items(nodes, fresh), limit)

    def _array(self, fresh: Any, dtype: Any, shape: list[int], place: list[Any]) -> Any:
        if dtype != "object":
            return self._read_array(dtype, shape, place)
        array = np.empty(len(place), dtype=object)
        known = fresh.ravel().tolist() if isinstance(fresh, np.ndarray) else None
        for index, one in enumerate(self._items(place, known)):
            array[index] = one
        return array.reshape(shape)

    def _tensor(self, fresh: Any, name: str, shape: list[int], place: Any, device: str) -> Tensor:
        where = fresh.device if isinstance(fresh, Tensor) else torch.device(device)
        return self._read_tensor(name, shape, place).to(where)

    def _generator(self, fresh: Any, name: str, state: Any) -> Any:
        bits: Any = BIT_GENERATORS[name]()
        bits.state = self.decode(state, _NOTHING)
        return np.random.Generator(bits)

    def _random_state(self, fresh: Any, state: Any) -> Any:
        made = np.random.RandomState()
        made.set_state(self.decode(state, _NOTHING))
        return made

    def _random(self, fresh: Any, state: Any) -> Any:
        made = random.Random()
        made.setstate(self.decode(state, _NOTHING))
        return made

    def _torch_generator(
        self, fresh: Any, device: str, name: str, shape: list[int], place: Any, _: str
    ) -> torch.Generator:
        made = torch.Generator(device)
        made.set_state(self._read_tensor(name, shape, place))
        return made

    def _own(self, fresh: Any, node: Any) -> Any:
        if fresh is _NOTHING or not has_own_form(fresh):
            raise SnapshotError("it had an object with a state_dict, where this one has none")
        state = self.decode(node, _NOTHING)
        self.commits.append(lambda: fresh.load_state_dict(state))
        return fresh

    def _pickle(self, fresh: Any, start: int, size: int) -> Any:
        if not self._trust:
            raise SnapshotError(
                f"a {type(fresh).__name__} is pickled in it, which may run any code: "
                "trust_code=True (--trust-code) reads it"
            )
        return pickle.loads(self._read(start, size))

    def _object(self, number: int, fresh: Any, name: str, nodes: list[Any]) -> Any:
        is_there = class_name(type(fresh)) == name and id(fresh) not in self._taken
        if is_there:
            made = fresh
            self._taken.add(id(fresh))
        else:
            made = self._new(name)
        self._made[number] = made
        known = vars(made)
        values: dict[str, Any] = {}
        for attribute, node in nodes:
            if attribute not in known and _is_code(type(made), attribute):
                raise SnapshotError(f"the attribute {attribute!r} would hide a method of {name}")
            values[attribute] = self.decode(node, known.get(attribute, _NOTHING))
        self.commits.append(lambda: _fill(made, values))
        return made

    def _new(self, name: str) -> Any:
        if self._classes is None:
            self._classes = classes_in(self._root)
        cls = self._classes.get(name)
        if cls is None:
            raise SnapshotError(
                f"it had an object of {name}, which a new environment does not have"
            )
        return object.__new__(cls)

    def _read(self, start: int, size: int) -> bytes:
        if start < 0 or size < 0 or start + size > len(self._buffer):
            raise SnapshotError("the state is cut off")
        return self._buffer[start : start + size]

    def _read_array(self, dtype: Any, shape: list[int], place: list[int]) -> Any:
        if isinstance(dtype, list):
            dtype = [tuple(field) for field in dtype]
        kind = np.dtype(dtype)
        if kind.hasobject:
            raise SnapshotError("the state is damaged: an array of objects without them")
        return np.frombuffer(self._read(*place), kind).reshape(shape).copy()

    def _read_tensor(self, name: str, shape: list[int], place: list[int]) -> Tensor:
        dtype = getattr(torch, name)
        if not isinstance(dtype, torch.dtype):
            raise SnapshotError(f"the state is damaged: {name!r} is not a dtype")
        data = bytearray(self._read(*place))
        if not data:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(shape).clone()


_IMMUTABLE = {"same", "tuple", "enum", "scalar", "bytes", "complex", "constant"}
_NUMBERED = {"frozenset", "deque", "array", "tensor", "generator", "random_state", "random"}
_NUMBERED |= {"torch_generator", "own", "pickle"}


def _is_code(cls: type, name: str) -> bool:
    found = inspect.getattr_static(cls, name, None)
    return callable(found) or isinstance(found, staticmethod | classmethod | property)


def _fill(made: Any, values: dict[str, Any]) -> None:
    known = vars(made)
    if not isinstance(made, gym.Space):
        for name in [name for name, one in known.items() if not isinstance(one, EnvSpec)]:
            del known[name]
    known.update(values)
