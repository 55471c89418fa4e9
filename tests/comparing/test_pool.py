import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from xlstm_rl.comparing import pool
from xlstm_rl.comparing.job import DONE, FAILED, Job, Result

PARENT = """
import os
import signal
import sys
import time

from xlstm_rl.comparing.worker import _end_with_parent

read, write = os.pipe()
if os.fork():
    os.read(read, 1)
    time.sleep(600)


def end(*_):
    print("asked to end", flush=True)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
_end_with_parent()
print("ready", flush=True)
os.write(write, b".")
time.sleep(600)
"""


def test_as_many_run_at_once_as_there_are_processors_for_their_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pool, "_CGROUP", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert pool.processors() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert pool.processors() >= 1


class Ended:
    """A process that is over."""

    def __init__(self, code: int) -> None:
        self.returncode = code


def ended(tmp_path: Path, code: int, own_lines: str, result: Result | None = None) -> Result:
    """What the pool says of a process that ended so, in a log that an earlier one began."""
    job = Job("case", "gru", 0, tmp_path / "seed0", {}, {})
    job.log_file.write_text("ValueError: of the attempt before\n")
    log = job.log_file.open("ab")
    running = pool.Running(job, cast(Any, Ended(code)), log, log.tell())
    log.write(own_lines.encode())
    log.close()
    if result is not None:
        result.write(job)
    return pool._ended(running)


@pytest.mark.parametrize(
    ("code", "lines", "why"),
    [
        (-9, "", "its process was killed by SIGKILL"),
        (128 + 15, "new episodes begin\n", "its process was stopped by SIGTERM"),
        (128 + 127, "", "its process was stopped by signal 127"),
        (3, "", "its process ended with 3"),
        (1, "a line\nMemoryError: none left\n", "MemoryError: none left"),
        (0, "", "its result cannot be read"),
    ],
)
def test_the_reason_is_that_of_this_attempt(
    tmp_path: Path, code: int, lines: str, why: str
) -> None:
    assert ended(tmp_path, code, lines) == Result(FAILED, why)


@pytest.mark.parametrize("result", [Result(FAILED, "EnvError: it broke"), Result(DONE, "")])
@pytest.mark.parametrize("code", [0, 1, -11])
def test_what_a_process_wrote_counts_however_it_ended(
    tmp_path: Path, code: int, result: Result
) -> None:
    assert ended(tmp_path, code, "Destroy semaphore\n", result) == result


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for it")
def test_a_worker_ends_with_its_comparison(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    parent.wait()
    with parent.stdout as pipe:
        assert pipe.read() == "asked to end\n"  # the pipe ends when nobody has it any more
