"""The compiled library: found, checked and loaded once, when it is first asked for.

`XLSTM_RL_NATIVE=0` leaves it alone, `XLSTM_RL_NATIVE=avx2` (or another target) takes that one, and
`XLSTM_RL_NATIVE_FOLDER` is where it lies, if not beside this file.
"""

import ctypes
import functools
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from xlstm_rl.kernels.native import compilation

MAX_THREADS = 256
"""`XL_MAX_THREADS` of `src/parallel.h`."""

_asked = threading.local()  # `count`, within `native_threads`

_BUILD = "python -m xlstm_rl.kernels.native.build"


class NotLoadedError(Exception):
    """Why there is no library to call, in one line."""


def library() -> ctypes.CDLL | None:
    """Return the library, or ``None`` where it cannot be used."""
    return _loaded()[0]


def why_not_native() -> str | None:
    """Why the library cannot be used, with what to do; ``None`` where it can."""
    return _loaded()[2]


def target() -> str | None:
    """Which of the libraries was loaded: ``"avx2"``, ``"avx512"`` or ``"neon"``."""
    return _loaded()[1]


def num_threads() -> int:
    """How many threads a call may use, `MAX_THREADS` at most: those of torch's operations.

    Inside `native_threads` those that were asked for there.
    """
    return min(getattr(_asked, "count", None) or torch.get_num_threads(), MAX_THREADS)


@contextmanager
def native_threads(count: int | None) -> Iterator[None]:
    """Let calls of this Python thread use `count`, however many torch has; None: as torch."""
    before, _asked.count = getattr(_asked, "count", None), count
    try:
        yield
    finally:
        _asked.count = before


def call(function: Callable[..., int], arguments: ctypes.Structure) -> int:
    """Call an exported function with a pointer to its arguments.

    It runs on `num_threads` threads, and on no more than `arguments.workers` where there is such a
    field: for so many its memory was laid out, by what torch said then.

    Args:
        function: an attribute of `library`, which returns a status.
        arguments: whose tensors the caller has checked and keeps alive.
    """
    loaded = _loaded()[0]
    assert loaded is not None  # the function came from it
    threads = num_threads()
    loaded.xl_set_threads(min(threads, getattr(arguments, "workers", threads)))
    return function(ctypes.byref(arguments))


@functools.cache
def _loaded() -> tuple[ctypes.CDLL | None, str | None, str | None]:
    """The library, its target, and why there is none."""
    try:
        name = choose_target()
        return load(name), name, None
    except NotLoadedError as error:
        return None, None, str(error)


def choose_target() -> str:
    """Return the best target that this CPU can run, or the one that `XLSTM_RL_NATIVE` names.

    Raises:
        NotLoadedError: none, or it is switched off.
    """
    wish = os.environ.get("XLSTM_RL_NATIVE", "1").lower()
    if wish in ("0", "false", "no", "off"):
        raise NotLoadedError(f"XLSTM_RL_NATIVE={wish} switches it off")
    can_run = cpu_targets()
    if wish in ("", "1", "true", "yes", "on", "auto"):
        return can_run[0]
    if wish not in can_run:
        raise NotLoadedError(
            f"XLSTM_RL_NATIVE={wish} is not a target of this CPU: use 0, 1, {', '.join(can_run)}"
        )
    return wish


def cpu_targets() -> tuple[str, ...]:
    """Return the targets that this CPU and this system can run, the best first.

    torch has asked both: inside a container or an emulator too.

    Raises:
        NotLoadedError: none.
    """
    machine = platform.machine()
    if machine in ("aarch64", "arm64"):
        return ("neon",)
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX512":
        return ("avx512", "avx2")
    if capability == "AVX2":
        return ("avx2",)
    raise NotLoadedError(
        f"it needs AVX2 and FMA, or a 64-bit ARM; torch calls this CPU ({machine}) {capability}"
    )


def folder() -> Path:
    """Where the libraries are looked for."""
    return Path(os.environ.get("XLSTM_RL_NATIVE_FOLDER") or compilation.HERE)


def load(name: str) -> ctypes.CDLL:
    """Load the library of a target.

    Raises:
        NotLoadedError: it is missing, broken, or of another version.
    """
    path = compilation.library_path(name, folder())
    if not path.exists():
        raise NotLoadedError(
            f"it was not built when the package was installed ({path.name} is missing, perhaps for "
            f"want of a C compiler): run {_BUILD}"
        )
    try:
        loaded = ctypes.CDLL(str(path))
        loaded.xl_version.restype = ctypes.c_char_p
        version = loaded.xl_version().decode()
    except (OSError, AttributeError) as error:
        raise NotLoadedError(f"{path.name} cannot be loaded ({error}): run {_BUILD}") from error
    if version != compilation.stamp():
        raise NotLoadedError(
            f"{path.name} was built from other sources ({version}) than those of this version "
            f"({compilation.stamp()}): run {_BUILD}"
        )
    loaded.xl_set_threads.argtypes = (ctypes.c_int,)
    loaded.xl_set_threads.restype = ctypes.c_int
    return loaded
