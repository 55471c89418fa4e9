"""One process at a time trains in a run folder, and a file there names it."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xlstm_rl.config import ConfigError

LOCK_FILE = "lock"

_held: set[Path] = set()
"""Locks of this process, which the system would give it a second time."""


@contextmanager
def run_locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder.

    It is a lock of the operating system on the file `lock`, which holds `pid`, `host` and `since`:
    the system lets go of it when the process ends in any way, so that the file of a killed run
    refuses nobody. Where a file system knows no locks, the file alone counts, for as long as its
    process lives.

    Raises:
        ConfigError: another process holds it, or the folder cannot be written to.
    """
    path = (folder / LOCK_FILE).resolve()
    if path in _held:
        raise ConfigError(f"run folder {folder}: another agent of this process is training in it")
    file = _locked(folder, path)
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)
        with suppress(OSError):
            path.unlink()
        os.close(file)


def refuse_running(folder: Path) -> None:
    """Refuse a run folder that a process trains in at this moment.

    Raises:
        ConfigError: one does; it is named.
    """
    if (folder / LOCK_FILE).exists():
        with run_locked(folder):
            return


def _locked(folder: Path, path: Path) -> int:
    """Open the lock file, lock it, write this process into it and return its descriptor."""
    try:
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                _take(folder, file)
                if _is_still(path, file):  # and was not unlinked by who had it, meanwhile
                    _name_this_process(file)
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)
    except OSError as error:
        raise ConfigError(
            f"run folder {folder}: {LOCK_FILE} cannot be written: {error.strerror}"
        ) from None


def _take(folder: Path, file: int) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise _refusal(folder, _owner(file)) from None
    except OSError:  # a file system without locks
        owner = _owner(file)
        if _lives(owner):
            raise _refusal(folder, owner) from None


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _name_this_process(file: int) -> None:
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
    os.ftruncate(file, 0)
    os.pwrite(file, f"{json.dumps(owner)}\n".encode(), 0)


def _owner(file: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _lives(owner: dict[str, object]) -> bool:
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    if owner.get("host") != socket.gethostname():
        return True  # nobody here can tell
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return pid != os.getpid()


def _refusal(folder: Path, owner: dict[str, object]) -> ConfigError:
    who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    since = f", since {owner['since']}" if "since" in owner else ""
    return ConfigError(f"run folder {folder}: {who} is training in it{since}; wait, or stop it")
