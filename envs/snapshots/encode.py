"""From a running environment to plain data."""

from __future__ import annotations

import io
import json
import pickle
import random
from collections import OrderedDict, defaultdict, deque
from enum import Enum
from typing import Any

import numpy as np
import torch
from gymnasium.utils import EzPickle
from torch import Tensor

from xlstm_rl.envs.snapshots.graph import (
    BIT_GENERATORS,
    SCALARS,
    SnapshotError,
    attributes,
    class_name,
    constant_name,
    has_own_form,
    is_plain,
)

Snapshot = dict[str, Any]
"""`structure`, a text in JSON, and `arrays`, bytes that it refers to: nothing that runs."""


def take_snapshot(root: Any) -> Snapshot:
    """Return the state of an environment, of a vector of them, or of any other object.

    It is what a deep copy would hold: the attributes of its objects, arrays, random generators,
    each once where several names stand for it. Functions and classes are only named. An object
    with methods `state_dict` and `load_state_dict` is asked for its state; one that is more than
    its attributes is pickled, and so read again only where the snapshot is trusted.

    Raises:
        SnapshotError: something in it cannot be handed over, such as a window or a process.
    """
    encoder = _Encoder()
    try:
        node = encoder.encode(root, type(root).__name__)
    except SnapshotError:
        raise
    except Exception as error:  # somebody's attributes and methods may do anything
        raise SnapshotError(f"{type(error).__name__}: {error}") from error
    return {"structure": json.dumps(node), "arrays": bytes(encoder.buffer)}


class _Encoder:
    def __init__(self) -> None:
        self.buffer = bytearray()
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []
        self._pickled: set[int] = set()

    def encode(self, value: Any, path: str) -> Any:
        """Return the node of a value: itself, or a list that begins with what it is."""
        kind = type(value)
        if value is None or kind in SCALARS:
            return value
        if kind is tuple:
            return ["tuple", self._items(value, path)]
        if isinstance(value, Enum):
            return ["enum", value.name]
        if isinstance(value, np.generic):
            return ["scalar", *self._array(np.asarray(value), path)]
        if kind is bytes:
            return ["bytes", *self._store(value)]
        if kind is complex:
            return ["complex", value.real, value.imag]
        name = constant_name(value)
        if name is not None:
            return ["constant", name]
        if id(value) in self._pickled:
            raise SnapshotError(f"{path} is shared with an object that was pickled")
        number = self._numbers.get(id(value))
        if number is not None:
            return ["same", number]
        self._numbers[id(value)] = number = len(self._numbers)
        self._alive.append(value)  # or its id would be that of the next one
        tag, *parts = self._object(value, kind, path)
        return [tag, number, *parts]

    def _object(self, value: Any, kind: type, path: str) -> list[Any]:
        if kind in (list, set, frozenset):
            return [kind.__name__, self._items(value, path)]
        if kind is deque:
            return ["deque", self._items(value, path), value.maxlen]
        if kind in (dict, OrderedDict, defaultdict):
            factory = self.encode(getattr(value, "default_factory", None), path)
            items = [
                [self.encode(key, f"{path} key {key!r}"), self.encode(one, f"{path}[{key!r}]")]
                for key, one in value.items()
            ]
            return [kind.__name__, items, factory]
        if kind is np.ndarray:
            return ["array", *self._array(value, path)]
        if kind is Tensor:
            return ["tensor", *self._tensor(value, path)]
        if kind is np.random.Generator:
            bits = value.bit_generator
            name = type(bits).__name__
            if BIT_GENERATORS.get(name) is not type(bits):
                raise SnapshotError(f"{path} draws from a {name}, which is not known here")
            return ["generator", name, self.encode(bits.state, path)]
        if kind is np.random.RandomState:
            return ["random_state", self.encode(value.get_state(legacy=False), path)]
        if kind is random.Random:
            return ["random", self.encode(value.getstate(), path)]
        if kind is torch.Generator:
            return ["torch_generator", str(value.device), *self._tensor(value.get_state(), path)]
        if has_own_form(value):
            return ["own", self.encode(value.state_dict(), f"{path}.state_dict()")]
        if is_plain(value):
            found = attributes(value)
            nodes = [[name, self.encode(one, f"{path}.{name}")] for name, one in found.items()]
            return ["object", class_name(kind), nodes]
        return ["pickle", *self._pickle(value, path)]

    def _items(self, values: Any, path: str) -> list[Any]:
        return [self.encode(one, f"{path}[{index}]") for index, one in enumerate(values)]

    def _store(self, data: Any) -> tuple[int, int]:
        start = len(self.buffer)
        self.buffer += data
        return start, len(self.buffer) - start

    def _array(self, array: np.ndarray[Any, Any], path: str) -> list[Any]:
        if array.dtype.hasobject:
            if array.dtype != object:
                raise SnapshotError(f"{path} is an array of {array.dtype}")
            objects = self._items(array.ravel().tolist(), path)
            return ["object", list(array.shape), objects]
        start, size = self._store(np.ascontiguousarray(array).tobytes())
        dtype: Any = array.dtype.descr if array.dtype.names else array.dtype.str
        return [dtype, list(array.shape), [start, size]]

    def _tensor(self, tensor: Tensor, path: str) -> list[Any]:
        if tensor.layout != torch.strided or tensor.requires_grad:
            raise SnapshotError(f"{path} is a tensor with a gradient, or a sparse one")
        host = tensor.detach().cpu().contiguous()
        data = host.reshape(-1).view(torch.uint8) if host.numel() else host.new_empty(0)
        start, size = self._store(data.numpy().tobytes())
        name = str(tensor.dtype).removeprefix("torch.")
        return [name, list(tensor.shape), [start, size], str(tensor.device)]

    def _pickle(self, value: Any, path: str) -> list[int]:
        file = io.BytesIO()
        pickler = _Pickler(file, self._numbers.keys() - {id(value)})
        try:
            pickler.dump(value)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SnapshotError(f"{path} is a {type(value).__name__}: {reason}") from error
        self._pickled |= pickler.seen.keys() - {id(value)}
        self._alive += pickler.seen.values()
        return list(self._store(file.getvalue()))


class _Pickler(pickle.Pickler):
    """Refuses what would come back as something else than it was."""

    def __init__(self, file: io.BytesIO, shared: set[int]) -> None:
        super().__init__(file, protocol=4)
        self._shared = shared
        self.seen: dict[int, Any] = {}

    def persistent_id(self, obj: Any) -> None:
        """Look at an object; no object gets an id."""
        if id(obj) in self._shared:
            raise SnapshotError(f"it refers to a {type(obj).__name__} that is not its own")
        if isinstance(obj, EzPickle):
            raise SnapshotError("its pickle would hold how it was made, not its state")
        if type(obj) not in (*SCALARS, bytes, type(None), tuple) and not isinstance(obj, type):
            self.seen[id(obj)] = obj
