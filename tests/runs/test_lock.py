import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from xlstm_rl.config import ConfigError
from xlstm_rl.runs import lock as lock_module
from xlstm_rl.runs.lock import LOCK_FILE, refuse_running, run_locked

HOLDER = """
    import sys
    from pathlib import Path
    from xlstm_rl.runs.lock import run_locked

    with run_locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_lock_names_the_process_and_goes_with_it(tmp_path: Path) -> None:
    with run_locked(tmp_path):
        found = json.loads((tmp_path / LOCK_FILE).read_text())
        assert (found["pid"], found["host"]) == (os.getpid(), socket.gethostname())
    assert os.listdir(tmp_path) == []


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        said = rf"process {process.pid} on .* is training in it, since .*; wait, or stop it"
        for call in (lambda: run_locked(tmp_path).__enter__(), lambda: refuse_running(tmp_path)):
            with pytest.raises(ConfigError, match=said):
                call()
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == process.pid
    finally:
        process.communicate("")
    with run_locked(tmp_path):
        refused = pytest.raises(ConfigError, match="another agent of this process")
        with refused, run_locked(tmp_path):
            raise AssertionError("it was given twice")


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.communicate()
    assert (tmp_path / LOCK_FILE).exists()
    refuse_running(tmp_path)
    with run_locked(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_where_there_are_no_locks_the_file_alone_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock_module.fcntl, "lockf", unsupported)
    here = {"host": socket.gethostname()}
    lock = tmp_path / LOCK_FILE
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for owner in ({**here, "pid": gone.pid}, {**here, "pid": os.getpid()}, {}):
        lock.write_text(json.dumps(owner))
        with run_locked(tmp_path):
            assert json.loads(lock.read_text())["pid"] == os.getpid()
    for owner in ({**here, "pid": os.getppid()}, {"host": "elsewhere", "pid": 7}):
        lock.write_text(json.dumps(owner))
        with pytest.raises(ConfigError, match="is training in it"):
            run_locked(tmp_path).__enter__()


def test_a_folder_that_cannot_be_written_to_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(ConfigError, match=r"run folder .*: lock cannot be written: ") as refused:
        run_locked(tmp_path).__enter__()
    assert "\n" not in str(refused.value)
