"""The command, with its processes: what fails is named, what is done stays."""

import csv
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from xlstm_rl.cli import main
from xlstm_rl.cli.compare import prepare
from xlstm_rl.comparing import compare, pool
from xlstm_rl.comparing.job import Job, Result
from xlstm_rl.comparing.pool import OnChange
from xlstm_rl.comparing.report import Report
from xlstm_rl.comparing.worker import work

SMALL = [
    *("--total-steps", "64", "--env.num-envs", "2", "--memory.width", "8", "--episodes", "2"),
    *("--agent.rollout-steps", "16", "--agent.epochs", "1", "--agent.minibatches", "1"),
    *("--logger.kind", "csv", "--checkpoint.every-steps", "32", "--memory.kind", "mlp"),
]

MEMORIES = '''
"""Memories that end a run: one kills the process, the other makes NaN."""
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xlstm_rl.memory.baselines import MLPMemory
from xlstm_rl.memory.config import LayeredConfig


@dataclass(frozen=True)
class DiesConfig(LayeredConfig):
    kind: Literal["bad_memories:Dies"] = "bad_memories:Dies"


@dataclass(frozen=True)
class DivergesConfig(LayeredConfig):
    kind: Literal["bad_memories:Diverges"] = "bad_memories:Diverges"


class Dies(MLPMemory):
    config_class = DiesConfig

    def _sequence(self, x, tensors, reset):
        if Path("is_deadly").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._sequence(x, tensors, reset)


class Diverges(MLPMemory):
    config_class = DivergesConfig

    def _sequence(self, x, tensors, reset):
        y, state = super()._sequence(x, tensors, reset)
        return y * float("nan"), state
'''


ALGORITHM = """
from dataclasses import dataclass

from xlstm_rl import RecurrentPPO
from xlstm_rl.agents.config import PPOConfig


@dataclass(frozen=True)
class LouderConfig(PPOConfig):
    algo: str = "loud_agents:Louder"
    loudness: int = 3


class Louder(RecurrentPPO):
    algo = "loud_agents:Louder"
    config_class = LouderConfig
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_fails_is_named_and_in_no_mean_and_the_same_command_goes_on(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "bad_memories.py").write_text(MEMORIES)
    (place / "is_deadly").touch()
    command = ["compare", *SMALL, "--out", "out", "--seeds", "1", "--jobs", "2"]
    command += ["--memories", "mlp", "bad_memories:Dies"]
    assert main([*command, "bad_memories:Diverges"]) == 1
    output = capsys.readouterr()
    assert "bad_memories:Dies  seed 0: failed: its process was killed by SIGKILL" in output.out
    assert "bad_memories:Diverges  seed 0: failed: NonFiniteLossError" in output.out
    table = _rows(place / "out" / "table.csv")
    assert [row["seeds_done"] for row in table] == ["1", "0", "0"]
    assert [row["return"] == "nan" for row in table] == [False, True, True]
    assert "In no number" in (place / "out" / "table.md").read_text()
    first = place / "out" / "CartPoleNoVel-v1" / "mlp" / "seed0.json"
    written = first.stat().st_mtime_ns

    (place / "is_deadly").unlink()
    assert main(command) == 0
    assert first.stat().st_mtime_ns == written
    assert "SIGKILL" not in capsys.readouterr().out
    assert [row["seeds_done"] for row in _rows(place / "out" / "table.csv")] == ["1", "1"]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs one after the other, without the seconds that a process takes to start."""

    def run(jobs: Sequence[Job], at_once: int, on_change: OnChange, tick: object) -> None:
        for job in jobs:
            on_change(job, None)
            on_change(job, work(job))

    monkeypatch.setattr(compare, "run_jobs", run)


@pytest.mark.usefixtures("in_this_process")
def test_the_table_holds_what_the_runs_say(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", *SMALL, "--out", "out", "--seeds", "2", "--memories", "mlp", "gru"]
    assert main([*command, "--match", "parameters", "--threshold", "1"]) == 0
    out = capsys.readouterr()
    assert out.err.count("seed 0  return") == 2 and "4/4" in out.err
    runs, table = _rows(place / "out" / "runs.csv"), _rows(place / "out" / "table.csv")
    assert [(run["memory"], run["seed"]) for run in runs] == [
        *(("mlp", "0"), ("mlp", "1"), ("gru", "0"), ("gru", "1")),
    ]
    for row in table:
        own = [float(run["return"]) for run in runs if run["memory"] == row["memory"]]
        assert float(row["return"]) == pytest.approx(sum(own) / 2)
        assert row["reached"] == "2" and float(row["steps_to_threshold"]) <= 64
    weights = [int(row["weights"]) for row in table]
    assert weights[1] == pytest.approx(weights[0], rel=0.2)
    page = (place / "out" / "index.html").read_text()
    assert (
        "<svg" in page
        and "<table>" in page
        and "http://"
        not in page.replace("http://www.w3.org", "")
        .replace("http://purl.org", "")
        .replace("http://creativecommons.org", "")
    )
    assert (place / "out" / "curves.png").stat().st_size > 1000


def test_a_full_disk_leaves_the_table_on_the_terminal(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Result, "write", full)
    monkeypatch.setattr(Report, "write", full)
    monkeypatch.setattr(pool, "_started", full)
    command = ["compare", *SMALL, "--out", "out", "--seeds", "2", "--memories", "mlp"]
    assert main(command) == 1
    output = capsys.readouterr()
    assert "0/2*" in output.out and "seed 1: failed: cannot be started" in output.out
    assert "the tables cannot be written: No space left on device" in output.err


@pytest.mark.slow
def test_tables_that_nobody_reads_are_written(place: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "xlstm_rl", "compare", *SMALL, "--out", "out", "--seeds", "1"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 141, done.stderr
    assert (place / "out" / "table.csv").exists()


def test_options_of_an_algorithm_of_another_module_are_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "loud_agents.py").write_text(ALGORITHM)
    monkeypatch.syspath_prepend(str(place))
    own = ["--agent.algo", "loud_agents:Louder", "--agent.loudness", "5"]
    prepared = prepare([*SMALL, *own, "--seeds", "1", "--out", "out"])
    (job,) = prepared.jobs
    assert job.config["agent"]["loudness"] == 5


def test_the_configuration_of_a_run_is_compared_in_other_folders(place: Path) -> None:
    Path("config.yaml").write_text("run_dir: runs/mine\nmemory: {kind: mlp}\n")
    (job,) = prepare(["--config", "config.yaml", "--seeds", "1", "--out", "out"]).jobs
    assert Path(job.config["run_dir"]) == job.folder == Path("out/config/mlp/seed0")


def test_bad_options_are_one_line_and_make_nothing(
    refused: Callable[..., str], place: Path
) -> None:
    assert "--out is missing" in refused("compare")
    assert "did you mean --memories" in refused("compare", "--memoriess", "lstm", "--out", "out")
    assert "did you mean" in refused("compare", "--memories", "lstn", "--out", "out")
    assert "--config nothing" in refused("compare", "--config", "nothing", "--out", "out")
    assert "did you mean --agent.gamma" in refused("compare", "--agent.gama", "1", "--out", "out")
    assert "--agent.loudness: no such" in refused("compare", "--agent.loudness", "1", "--out", "o")
    assert "--seeds" in refused("compare", "--seeds", "0", "--out", "out")
    assert "--run-dir" in refused("compare", "--run-dir", "there", "--out", "out")
    assert "finite" in refused("compare", "--threshold", "nan", "--out", "out")
    twice = ["--memories", "mlp", "gru:width=8", "--match", "parameters"]
    assert "leave one of the two out" in refused("compare", *twice, "--out", "out")
    assert "device='cuda:99'" in refused("compare", "--device", "cuda:99", "--out", "out")
    several = ["--config", "parity", "tmaze", "--threshold", "1"]
    assert "--threshold" in refused("compare", *several, "--out", "out")
    assert not list(place.iterdir())
