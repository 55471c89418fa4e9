"""The processes that torchrun started a command in: they read alike, fail alike, and one speaks."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

from xlstm_rl.config.errors import ConfigError, one_line
from xlstm_rl.errors import CheckpointError, TrainingError
from xlstm_rl.runs.signals import STOP_SIGNALS, is_usual_handler

if TYPE_CHECKING:
    from xlstm_rl.distributed import Ranks

ResultT = TypeVar("ResultT")

_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Processes:
    """One process, or the several of a process group.

    Args:
        ranks: what they exchange through; None: there is one.
    """

    def __init__(self, ranks: "Ranks | None" = None) -> None:
        self._ranks = ranks
        self.size = 1 if ranks is None else ranks.size
        self.is_first = ranks is None or ranks.is_first

    def same(
        self, action: Callable[[], ResultT], undo: Callable[[ResultT], object] | None = None
    ) -> ResultT:
        """Return what an action returns; where it fails in one process, end all.

        The first process raises the error, which then is said once; the others end without a word.

        Args:
            action: done in every process.
            undo: given what it returned, where it failed in another one.
        """
        if self._ranks is None:
            return action()
        error: Exception | None = None
        try:
            result = action()
        except Exception as found:
            error = found
        told = None if error is None else (_status(error), one_line(error))
        answers = self._ranks.gathered(told)
        failed = [rank for rank, answer in enumerate(answers) if answer is not None]
        if not failed:
            return result
        if error is None and undo is not None:
            undo(result)
        status, line = answers[failed[0]] or (1, "")
        if not self.is_first:
            raise SystemExit(status)
        if error is not None:
            raise error
        kind = ConfigError if status == 2 else TrainingError
        raise kind(f"process {failed[0]} of {self.size}: {line}")

    def refuse_differences(self, config: object) -> None:
        """Refuse processes whose options or versions differ.

        Raises:
            ConfigError: they do; said by the first.
        """
        if self._ranks is None:
            return
        from xlstm_rl.config import config_to_dict

        try:
            self._ranks.refuse_differences(config_to_dict(config))
        except ConfigError:
            if self.is_first:
                raise
            raise SystemExit(2) from None


@contextmanager
def started_processes() -> Iterator[Processes]:
    """Join the processes that torchrun started this one among; without torchrun it is alone.

    gloo connects CPUs, NCCL GPUs. Each process takes the CUDA device of its number on its machine.

    Raises:
        ConfigError: what torchrun sets in the environment is not what it sets.
        TrainingError: the others cannot be joined.
    """
    if not all(os.environ.get(name) for name in _TORCHRUN) or os.environ["WORLD_SIZE"] == "1":
        yield Processes()
        return
    import torch
    import torch.distributed as dist

    from xlstm_rl.distributed import current_ranks

    joined = dist.is_initialized()
    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    if not joined:
        _check_torchrun()
        try:
            with _ended_by_signals():
                dist.init_process_group("cpu:gloo,cuda:nccl" if has_nccl else "gloo")
        except (RuntimeError, ValueError) as error:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise TrainingError(
                f"the other processes cannot be joined at MASTER_ADDR:MASTER_PORT={where}: "
                f"{one_line(error)[:200]}"
            ) from error
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if has_nccl and local < torch.cuda.device_count():
            torch.cuda.set_device(local)
    failed = True
    try:
        yield Processes(current_ranks())
        failed = False
    finally:
        # After an error the others may be gone, and NCCL would wait for them. gloo's threads, left
        # to the end of the interpreter, may abort it: the exit status would be lost.
        if not joined and not (failed and has_nccl):
            dist.destroy_process_group()


def _check_torchrun() -> None:
    """Refuse variables that torchrun would not have set."""
    size = _whole("WORLD_SIZE", 1, None)
    _whole("RANK", 0, size - 1)
    _whole("MASTER_PORT", 1, 65535)


def _whole(name: str, least: int, most: int | None) -> int:
    given = os.environ[name]
    value = int(given) if given.isascii() and given.isdecimal() else -1
    if value < least or (most is not None and value > most):
        limit = f">= {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name}={given}: expected an integer {limit}; torchrun sets it")
    return value


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a signal end the process at once: waiting for others, torch calls no handler of ours."""
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                before = signal.getsignal(number)
                if is_usual_handler(before):
                    stack.callback(signal.signal, number, before)
                    signal.signal(number, signal.SIG_DFL)
        yield


def _status(error: Exception) -> int:
    return 2 if isinstance(error, ConfigError | CheckpointError) else 1
