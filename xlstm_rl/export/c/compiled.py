"""Compile an exported C file, and call it."""

import ctypes
import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_rl.errors import ExportError
from xlstm_rl.kernels.native.compilation import BuildError, find_compiler

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-O2")
Array = NDArray[Any]
Arrays = dict[str, Array]

_DECLARED = re.compile(r"^extern const char (\w+)_description\[\];", re.MULTILINE)
_ALIGNED = 16
_TYPES: dict[str, Any] = {"float": ctypes.c_float, "double": ctypes.c_double}
for _bits in (8, 16, 32, 64):
    _TYPES[f"int{_bits}_t"] = getattr(ctypes, f"c_int{_bits}")
    _TYPES[f"uint{_bits}_t"] = getattr(ctypes, f"c_uint{_bits}")


class CompiledPolicy:
    """An exported C file in this process, for one environment after the other.

    Args:
        path: of the C file; its weights lie beside it.
        flags: of the compiler.

    Raises:
        ExportError: there is no compiler, it fails, or the weights are not those of the file.
    """

    def __init__(self, path: str | Path, flags: tuple[str, ...] = FLAGS) -> None:
        path = Path(path)
        name = _DECLARED.findall(path.read_text("utf-8"))[0]
        with tempfile.TemporaryDirectory() as folder:
            library: Any = ctypes.CDLL(str(compile_library(path, Path(folder), flags)))
        text = ctypes.cast(library[f"{name}_description"], ctypes.c_char_p).value or b""
        self.description: dict[str, Any] = json.loads(text)
        own = self.description["c"]
        self._weights = _aligned(own["weights"])
        self._read(library[f"{name}_weights"], path.with_suffix(".weights"))
        self._function = library[f"{name}_step"]
        self._function.argtypes = [ctypes.c_void_p] * 5
        self._acted = getattr(library, f"{name}_acted", None)
        if self._acted is not None:
            self._acted.argtypes, self._acted.restype = [ctypes.c_void_p] * 3, None
        self._inputs, self._outputs = own["inputs"], own["outputs"]
        self.state = np.zeros(max(own["state"], 1), np.float32)
        self._work = np.zeros(max(own["work"], 1), np.float32)
        into = [(field, _input_type(kind, port)) for field, kind, port in self._inputs]
        out_of = [(field, _output_type(kind, shape)) for field, kind, shape in self._outputs]
        self._in = type("Inputs", (ctypes.Structure,), {"_fields_": into})()
        self._out = type("Outputs", (ctypes.Structure,), {"_fields_": out_of})()
        self._kept: list[Array] = []

    def _read(self, read: Any, path: Path) -> None:
        read.restype, read.argtypes = ctypes.c_char_p, [ctypes.c_char_p, ctypes.c_void_p]
        wrong = read(str(path).encode(), self._weights.ctypes.data)
        if wrong is not None:
            raise ExportError(f"{path}: {wrong.decode()}")

    def give(self, inputs: Arrays) -> None:
        """Set the inputs of the next step, without a batch axis, by their ports' names."""
        self._kept = []  # as long as C may look at them
        for field, kind, port in self._inputs:
            value = np.ascontiguousarray(inputs[port])
            if port == "reset":
                self._in.reset = int(value.item())
            elif port == "reward":
                self._in.reward = float(value.item())
            else:
                self._kept.append(value)
                pointer = ctypes.c_void_p(value.ctypes.data)
                setattr(self._in, field, ctypes.cast(pointer, ctypes.POINTER(_TYPES[kind])))

    def step(self) -> int:
        """Take a step from the inputs and the state, and return what C returned."""
        arguments = (self.state, self._work)
        state, work = (one.ctypes.data for one in arguments)
        into, out_of = ctypes.addressof(self._in), ctypes.addressof(self._out)
        found: int = self._function(self._weights.ctypes.data, into, state, out_of, work)
        return found

    def acted(self, actions: Arrays) -> None:
        """Put other actions than the last step's into the state, by their fields' names.

        Raises:
            ExportError: the policy reads no previous actions.
        """
        if self._acted is None:
            raise ExportError("this policy reads no previous action: leave the call out")
        for field, x in actions.items():
            own = getattr(self._out, field)
            if isinstance(own, ctypes.Array):
                own[:] = np.ravel(x).tolist()
            else:
                setattr(self._out, field, x.item())
        out_of, state = ctypes.addressof(self._out), self.state.ctypes.data
        self._acted(self._weights.ctypes.data, out_of, state)

    def bound_step(self) -> Callable[[], int]:
        """Return a step with its arguments at hand: nothing but the call, to be timed."""
        function, arguments = (
            self._function,
            (
                self._weights.ctypes.data,
                ctypes.addressof(self._in),
                self.state.ctypes.data,
                ctypes.addressof(self._out),
                self._work.ctypes.data,
            ),
        )
        return lambda: function(*arguments)

    def outputs(self) -> Arrays:
        """Return copies of the outputs by their fields' names, each in its shape."""
        found = {}
        for field, _, shape in self._outputs:
            found[field] = np.array(getattr(self._out, field)).reshape(shape)
        return found


def load(path: Path) -> Callable[[Arrays], Arrays]:
    """Return what runs a file: arrays by name in, arrays by name out, for a batch."""
    policy = CompiledPolicy(path)
    ports = policy.description["inputs"]
    state = [(p["name"], p["shape"][1:]) for p in ports if p["name"].startswith("state.")]
    dtypes = policy.description["c"]["dtypes"]

    def run(inputs: Arrays) -> Arrays:
        rows = []
        for row in range(len(inputs["reset"])):
            policy.give({name: x[row] for name, x in inputs.items()})
            own = [inputs[name][row].ravel() for name, _ in state]
            policy.state[:] = np.concatenate([*own, np.zeros(int(not own), np.float32)])
            if number := policy.step():
                raise ValueError(
                    f"the C file refused a choice outside of its space (status {number})"
                )
            rows.append(_row(policy, state, dtypes))
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    return run


def _row(policy: CompiledPolicy, state: list[Any], dtypes: dict[str, str]) -> Arrays:
    found, outputs = {}, policy.outputs()
    for (name, dtype), x in zip(dtypes.items(), outputs.values(), strict=False):
        found[name] = x.astype(dtype)
    at = 0
    for name, shape in state:
        size = int(np.prod(shape))
        after = policy.state[at : at + size].reshape(shape).copy()
        found[name.replace("state.", "next.", 1)] = after
        at += size
    return found


def compile_library(path: Path, folder: Path, flags: tuple[str, ...] = FLAGS) -> Path:
    """Compile a C file into a shared library in a folder and return it.

    Raises:
        ExportError: there is no compiler, or it fails.
    """
    library = folder / "policy.so"
    try:
        command = [*find_compiler(), *flags, "-shared", "-fPIC", "-x", "c", str(path)]
    except BuildError as error:
        raise ExportError(f"a C file runs only where it can be compiled: {error}") from None
    made = subprocess.run([*command, "-o", str(library), "-lm"], capture_output=True, text=True)
    if made.returncode:
        lines = made.stderr.strip().splitlines() or [f"status {made.returncode}"]
        errors = [line for line in lines if "error" in line]
        raise ExportError(f"the C file does not compile: {(errors or lines)[0].strip()}")
    return library


def _input_type(kind: str, port: str) -> Any:
    if port == "reset":
        return ctypes.c_int
    return ctypes.c_float if port == "reward" else ctypes.POINTER(_TYPES[kind])


def _output_type(kind: str, shape: list[int]) -> Any:
    return _TYPES[kind] * int(np.prod(shape)) if shape else _TYPES[kind]


def _aligned(size: int) -> NDArray[np.uint8]:
    """Return memory that begins at a multiple of 16 bytes."""
    memory = np.zeros(size + _ALIGNED, np.uint8)
    skip = -memory.ctypes.data % _ALIGNED
    return memory[skip : skip + size]
