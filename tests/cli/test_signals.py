"""Ctrl-C, SIGTERM and closed pipes, as a shell or a cluster would have them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.agents import PPOConfig, TrainConfig
from xlstm_rl.cli import main
from xlstm_rl.cli import train as train_command
from xlstm_rl.runs.folder import checkpoint_steps

COMMAND = [sys.executable, "-m", "xlstm_rl"]
TINY = (
    *("--env.num-envs", "2", "--agent.rollout-steps", "8", "--agent.minibatches", "1"),
    *("--memory.width", "8", "--memory.num-heads", "2", "--device", "cpu"),
)


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a training run in a group of processes of its own; killed at the end."""
    processes: list[subprocess.Popen[str]] = []

    def start(run: Path, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, "train", "--run-dir", str(run), "--total-steps", "100000000", *TINY, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_an_update(process: subprocess.Popen[str], run: Path) -> None:
    metrics, deadline = run / "metrics.csv", time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 1):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no update"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "status", "word"),
    [
        *(("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")),
        pytest.param("SIGHUP", 129, "saved in", marks=pytest.mark.slow),
    ],
)
@pytest.mark.few(1)
def test_a_signal_saves_the_run_and_decides_the_exit_status(
    name: str, status: int, word: str, started: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = started(run)
    wait_for_an_update(process, run)
    assert checkpoint_steps(run) == []
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert out.startswith(word)
    assert "Traceback" not in err
    load_policy(run)
    assert checkpoint_steps(run)[0] > 0


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.few(1)
def test_a_signal_to_the_environments_processes_too_changes_nothing(
    name: str, status: int, started: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = started(run, "--env.id", "Acrobot-v1", "--env.vectorization", "async")
    wait_for_an_update(process, run)
    os.killpg(process.pid, getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    load_policy(run)


class Agent:
    """Stands in for an agent; `learn` does what a test says."""

    def __init__(self, learn: Callable[[], None]) -> None:
        self._learn = learn
        self.steps_done = 0
        self.config = TrainConfig(agent=PPOConfig(rollout_steps=64))
        self.closed = False

    def open_run(self) -> Path:
        return Path("run")

    def learn(self, on_update: Any, profile: Any = None) -> None:
        self._learn()

    def close(self) -> None:
        self.closed = True
        raise BrokenPipeError("the environments' processes are gone")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_decides_the_status_whatever_closing_raises(
    first: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = Agent(lambda: signal.raise_signal(first))
    monkeypatch.setattr(train_command, "make_agent", lambda config: agent)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert main(["train"]) == 128 + first
    assert agent.closed
    output = capsys.readouterr()
    assert "saved in run; next: xlstm-rl resume run" in output.out and output.err == ""
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("SIGTERM", 143),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("SIGINT", 130), ("SIGHUP", 129))),
    ],
)
def test_a_signal_ends_what_draws_and_leaves_nothing_behind(
    name: str, status: int, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, "inspect", str(run), "--out", str(out), "--episodes", "1000000"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not out.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        time.sleep(2)  # SDL has begun to draw
        process.send_signal(getattr(signal, name))
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status, error
    assert not list(tmp_path.glob("out*"))


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    agent = Agent(lambda: (signal.raise_signal(signal.SIGHUP), ended.append(True))[0])
    agent.close = lambda: None  # type: ignore[method-assign]
    monkeypatch.setattr(train_command, "make_agent", lambda config: agent)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        assert main(["train"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ended


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    agent = RecurrentPPO(
        "CartPole-v1",
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 1},
        logger={"kind": "csv"},
        run_dir=str(tmp_path_factory.mktemp("runs") / "run"),
    )
    with agent:
        agent.learn(480)
    return agent.run_dir  # type: ignore[return-value]


def run_unread(*args: str, streams: tuple[str, ...] = ("stdout",)) -> tuple[int, str]:
    """Run a command whose output goes to a pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, *args],
        stdout=write if "stdout" in streams else subprocess.PIPE,
        stderr=write if "stderr" in streams else subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(write)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["train", "--help"],
        ["list", "envs"],
        pytest.param(["eval", "RUN", "--episodes", "1"], marks=pytest.mark.slow),
        ["plot", "RUN", "--out", "FIGURE"],
    ],
    ids=lambda args: " ".join(args),
)
def test_output_that_nobody_reads_is_no_failure(args: list[str], run: Path, tmp_path: Path) -> None:
    names = {"RUN": str(run), "FIGURE": str(tmp_path / "figure.svg")}
    assert run_unread(*(names.get(word, word) for word in args)) == (141, "")


def test_training_that_nobody_reads_is_saved(tmp_path: Path) -> None:
    args = ("train", *TINY, "--total-steps", "100000000", "--run-dir", str(tmp_path / "run"))
    status, _ = run_unread(*args, streams=("stdout", "stderr"))
    assert status == 141
    load_policy(tmp_path / "run")


def test_an_error_that_nobody_reads_keeps_its_status() -> None:
    assert run_unread("trian", streams=("stderr",)) == (2, "")


@pytest.mark.parametrize("closed", ["1>&-", "1>&- 2>&-"])
@pytest.mark.parametrize("args", ["eval --help", "list wrappers", "train --seed x"])
@pytest.mark.each_value
def test_a_command_without_output_streams_does_what_it_does(args: str, closed: str) -> None:
    done = subprocess.run(
        f"{' '.join(COMMAND)} {args} {closed}", shell=True, capture_output=True, text=True
    )
    assert done.returncode == (2 if "--seed" in args else 0), done.stderr
    assert "AttributeError" not in done.stderr


def test_a_pipe_that_breaks_elsewhere_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    def learn() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    agent = Agent(learn)
    agent.close = lambda: None  # type: ignore[method-assign]
    monkeypatch.setattr(train_command, "make_agent", lambda config: agent)
    assert "failed: BrokenPipeError" in refused("train", status=1)
