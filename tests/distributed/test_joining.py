"""Processes that cannot join the others that torchrun should have started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from xlstm_rl.cli.main import main

ROOT = Path(__file__).parents[2]
GOOD = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"}


@pytest.mark.parametrize("command", ["train", "resume"])
@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: expected an integer >= 1; torchrun sets it"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0: expected an integer >= 1"),
        ({"RANK": "2"}, "RANK=2: expected an integer from 0 to 1"),
        ({"RANK": "-1"}, "RANK=-1: expected an integer from 0 to 1"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000: expected an integer from 1 to 65535"),
        ({"MASTER_PORT": "ssh"}, "MASTER_PORT=ssh: expected an integer from 1 to 65535"),
    ],
)
def test_wrong_variables_are_one_line(
    command: str,
    wrong: dict[str, str],
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in (GOOD | wrong).items():
        monkeypatch.setenv(name, value)
    words = [str(tmp_path)] if command == "resume" else ["--run-dir", str(tmp_path / "run")]
    assert main([command, *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and line in said
    assert not (tmp_path / "run").exists()


def test_an_error_of_torch_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such host\nException raised from connect\nframe #0")

    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.distributed.init_process_group", fail)
    assert main(["train", "--run-dir", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "cannot be joined at MASTER_ADDR:MASTER_PORT=127.0.0.1:29999: no such host" in said


def test_a_signal_ends_a_process_that_waits_for_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        waiting = subprocess.Popen(
            [sys.executable, "-m", "xlstm_rl", "train"],
            env={**os.environ, **GOOD, "MASTER_PORT": port, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        try:
            silent.settimeout(120)
            connection, _ = silent.accept()
            with connection:
                waiting.send_signal(signal.SIGTERM)
                assert waiting.wait(60) == -signal.SIGTERM
        finally:
            waiting.kill()
            waiting.wait()
