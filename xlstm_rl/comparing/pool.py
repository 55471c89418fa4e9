"""Runs the jobs, several processes at once, each with what it needs and none beside another's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from xlstm_rl.comparing.job import FAILED, Job, Result
from xlstm_rl.runs.signals import stopped_once

_POLL = 0.2  # seconds
_GRACE = 60.0
"""Seconds that a process has to save its run once it was asked to end."""

_CGROUP = Path("/sys/fs/cgroup/cpu.max")


@dataclass
class Running:
    """A process that works on a job."""

    job: Job
    process: "subprocess.Popen[bytes]"
    log: IO[bytes]
    log_start: int
    """Where in the log its own lines begin: earlier attempts stand before it."""
    began: float = field(default_factory=time.monotonic)


OnChange = Callable[[Job, Result | None], None]
"""Called when a job begins (None) and when it ends."""


def processors() -> int:
    """Return how many processors this process may use, the limit of its container included."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = _CGROUP.read_text(encoding="utf-8").split()
        count = min(count, max(1, int(quota) // int(period)))
    return count


def run_jobs(
    jobs: Sequence[Job],
    at_once: int,
    on_change: OnChange,
    tick: Callable[[Sequence[Running]], None],
) -> None:
    """Run the jobs, so many at once; one that fails is written down, and the others go on.

    Args:
        jobs: in the order in which they begin.
        at_once: how many processes.
        on_change: is told what began and how it ended.
        tick: is called again and again with what runs.

    Raises:
        KeyboardInterrupt: this process was asked to end. The others have been asked too, and have
            saved what they had.
    """
    waiting, running = list(jobs), list[Running]()
    with stopped_once():
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop(0)
                    on_change(job, None)
                    try:
                        running.append(_started(job))
                    except OSError as error:
                        on_change(job, _failed(job, f"cannot be started: {error}"))
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    one.log.close()
                    on_change(one.job, _ended(one))
                tick(running)
                if running:
                    time.sleep(_POLL)
        finally:
            _end(running)


def _started(job: Job) -> Running:
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    job.result_file.unlink(missing_ok=True)
    threads = str(job.config.get("threads") or os.cpu_count() or 1)
    log = job.log_file.open("ab")
    log_start = log.tell()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "xlstm_rl.comparing.worker"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            # libraries that make pools of threads for themselves take one for each processor
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
    except OSError:
        log.close()
        raise
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as pipe:  # it died at once: its status says so
        pipe.write(job.dumps().encode())
    return Running(job, process, log, log_start)


def _ended(one: Running) -> Result:
    """Return the result that the process wrote, or why there is none.

    A process may have written it and then end otherwise than well: simulators do, at exit.
    """
    code = one.process.returncode
    result = one.job.result()
    if result is not None:
        return result
    if code < 0:
        return _failed(one.job, f"its process was killed by {_signal(-code)}")
    if code > 128:
        return _failed(one.job, f"its process was stopped by {_signal(code - 128)}")
    if code == 0:
        return _failed(one.job, "its result cannot be read")
    return _failed(one.job, _last_line(one) or f"its process ended with {code}")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _failed(job: Job, why: str) -> Result:
    result = Result(FAILED, why)
    with suppress(OSError):  # a full disk: it is in the table of this call all the same
        result.write(job)
    return result


def _last_line(one: Running) -> str:
    try:
        with one.job.log_file.open("rb") as file:
            file.seek(one.log_start)
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""


def _end(running: Sequence[Running]) -> None:
    """Ask processes to save and end, and wait; kill what does not."""
    for one in running:
        with suppress(ProcessLookupError):
            one.process.terminate()
    deadline = time.monotonic() + _GRACE
    for one in running:
        try:
            one.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
        one.log.close()
