"""Signals, errors, full disks and failing loggers: what they cost, and what is saved."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.config import load_yaml
from xlstm_rl.errors import EnvError, NonFiniteLossError, TrainingError
from xlstm_rl.runs import interruption as interruption_module
from xlstm_rl.runs import run as run_module
from xlstm_rl.runs.folder import checkpoint_steps
from xlstm_rl.runs.loggers import Logger

ROLLOUT = 16
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class Acting(gymnasium.Env[Any, Any]):
    """CartPole in which something happens at one step of the whole run."""

    at, what = -1, staticmethod(lambda: None)
    steps = 0

    def __init__(self) -> None:
        self.env = gymnasium.make("CartPole-v1")
        self.observation_space, self.action_space = (
            self.env.observation_space,
            self.env.action_space,
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.env.reset(seed=seed)

    def step(self, action: Any) -> Any:
        Acting.steps += 1
        if Acting.steps == Acting.at:
            Acting.what()
        return self.env.step(action)


def make(run: Path, **others: Any) -> RecurrentPPO:
    return RecurrentPPO(
        Acting,
        run_dir=str(run),
        total_steps=10 * ROLLOUT,
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
        **{"logger": {"kind": "csv"}, **others},
    )


@pytest.fixture(autouse=True)
def nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Acting, "at", -1)
    monkeypatch.setattr(Acting, "steps", 0)
    monkeypatch.setattr(Acting, "what", staticmethod(lambda: None))


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], None]:
    """Let something happen in a step, counted from 1 and over both environments."""

    def plan(step: int, what: Callable[[], Any]) -> None:
        monkeypatch.setattr(Acting, "at", step)
        monkeypatch.setattr(Acting, "what", staticmethod(what))

    return plan


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_within_a_rollout_waits_for_the_update_and_loses_nothing(
    number: signal.Signals, tmp_path: Path, at_step: Any
) -> None:
    whole = make(tmp_path / "whole")
    with whole:
        whole.learn()
    Acting.steps = 0
    at_step(3 * ROLLOUT + 5, lambda: signal.raise_signal(number))
    before = handlers()
    with make(tmp_path / "run") as agent, pytest.raises(KeyboardInterrupt, match=number.name):
        agent.learn()
    assert handlers() == before
    assert checkpoint_steps(tmp_path / "run") == [agent.steps_done] == [4 * ROLLOUT]
    with RecurrentPPO.load(tmp_path / "run", Acting) as loaded:
        loaded.learn()
    for one, other in zip(loaded.parameters, whole.parameters, strict=True):
        assert torch.equal(one, other)


def test_a_second_signal_stops_at_once_and_saves_the_update_before(
    tmp_path: Path, at_step: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    at_step(3 * ROLLOUT + 5, lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    with make(tmp_path / "run") as agent, pytest.raises(KeyboardInterrupt):
        agent.learn()
    assert checkpoint_steps(tmp_path / "run") == [3 * ROLLOUT]
    capsys.readouterr()
    with RecurrentPPO.load(tmp_path / "run", Acting) as loaded:
        loaded.learn()
    assert "new episodes begin: the run was stopped within a rollout" in capsys.readouterr().err


def test_an_update_that_takes_long_is_not_waited_for(
    tmp_path: Path, at_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interruption_module, "PATIENCE", -10.0)
    at_step(3 * ROLLOUT + 5, lambda: signal.raise_signal(signal.SIGTERM))
    with make(tmp_path / "run") as agent, pytest.raises(KeyboardInterrupt):
        agent.learn()
    assert checkpoint_steps(tmp_path / "run") == [3 * ROLLOUT]


def test_an_environment_that_hangs_is_not_waited_for(
    tmp_path: Path, at_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang() -> None:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(interruption_module, "PATIENCE", 0.3)
    at_step(3 * ROLLOUT + 5, hang)
    began = time.monotonic()
    with make(tmp_path / "run") as agent, pytest.raises(KeyboardInterrupt):
        agent.learn()
    assert time.monotonic() - began < 50
    assert checkpoint_steps(tmp_path / "run") == [3 * ROLLOUT]


def test_further_signals_do_not_cut_the_save_short(
    tmp_path: Path, at_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = run_module.write_checkpoint

    def impatient(*args: Any) -> None:
        for number in SIGNALS:
            signal.raise_signal(number)
        write(*args)

    monkeypatch.setattr(run_module, "write_checkpoint", impatient)
    at_step(3 * ROLLOUT + 5, lambda: signal.raise_signal(signal.SIGINT))
    with make(tmp_path / "run") as agent, pytest.raises(KeyboardInterrupt):
        agent.learn()
    load_policy(tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run") == [4 * ROLLOUT]


def test_a_handler_of_the_users_own_is_left_alone(tmp_path: Path, at_step: Any) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    at_step(ROLLOUT + 5, lambda: signal.raise_signal(signal.SIGTERM))
    try:
        with make(tmp_path / "run") as agent:
            agent.learn()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM] and agent.steps_done == 10 * ROLLOUT


def test_outside_the_main_thread_an_error_is_saved_and_no_handler_is_set(
    tmp_path: Path, at_step: Any
) -> None:
    raised: list[BaseException] = []
    seen: list[Any] = []

    def work() -> None:
        at_step(3 * ROLLOUT + 5, lambda: (seen.append(handlers()), 1 / 0)[1])
        try:
            with make(tmp_path / "run") as agent:
                agent.learn()
        except EnvError as error:
            raised.append(error)

    before = handlers()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before] and len(raised) == 1
    assert checkpoint_steps(tmp_path / "run") == [3 * ROLLOUT]


def test_an_error_of_an_environment_saves_the_update_before(tmp_path: Path, at_step: Any) -> None:
    at_step(3 * ROLLOUT + 5, lambda: 1 / 0)
    with make(tmp_path / "run") as agent, pytest.raises(EnvError, match="ZeroDivisionError"):
        agent.learn()
    assert checkpoint_steps(tmp_path / "run") == [3 * ROLLOUT]
    saved = load_policy(tmp_path / "run").network.parameters()
    for one, other in zip(saved, agent.parameters, strict=True):
        assert torch.equal(one, other)


def test_an_error_of_a_callback_saves_its_own_update(tmp_path: Path) -> None:
    def on_update(step: int, metrics: dict[str, float]) -> None:
        if step == 3 * ROLLOUT:
            raise ZeroDivisionError

    with make(tmp_path / "run") as agent, pytest.raises((ZeroDivisionError, TrainingError)):
        agent.learn(on_update=on_update)
    assert checkpoint_steps(tmp_path / "run") == [3 * ROLLOUT]


def test_a_run_that_fails_in_its_first_rollout_leaves_no_checkpoint(
    tmp_path: Path, at_step: Any
) -> None:
    at_step(3, lambda: 1 / 0)
    with make(tmp_path / "run") as agent, pytest.raises(EnvError):
        agent.learn()
    assert checkpoint_steps(tmp_path / "run") == []


def test_weights_on_their_way_to_nan_do_not_become_the_newest_checkpoint(tmp_path: Path) -> None:
    def on_update(step: int, metrics: dict[str, float]) -> None:
        if step == 3 * ROLLOUT:
            with torch.no_grad():
                agent.parameters[0].fill_(float("nan"))

    checkpoint = {"every_steps": 2 * ROLLOUT}
    with make(tmp_path / "run", checkpoint=checkpoint) as agent, pytest.raises(Exception) as error:
        agent.learn(on_update=on_update)
    assert isinstance(error.value, NonFiniteLossError | ValueError | TrainingError)
    newest = load_policy(tmp_path / "run")
    if isinstance(error.value, NonFiniteLossError):
        assert checkpoint_steps(tmp_path / "run") == [2 * ROLLOUT]
        assert all(torch.isfinite(one).all() for one in newest.parameters())


FULL_DISK = """
    import resource, sys
    import test_interruption as test
    from pathlib import Path

    run = Path(sys.argv[1])
    agent = test.make(run, checkpoint={"every_steps": 16})

    def on_update(step, metrics):
        if step == 48:  # no file can grow beyond this: to a process, a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        if step == int(sys.argv[3]):
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

    with agent:
        agent.learn(on_update=on_update)
    print(agent.steps_done)
"""


def on_a_full_disk(run: Path, size: int, until: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(run), str(size), str(until)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{os.environ['PYTHONPATH']}"}
        if "PYTHONPATH" in os.environ
        else {**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_no_training(tmp_path: Path) -> None:
    done = on_a_full_disk(tmp_path / "run", 2000, 112)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "160\n"
    assert "the checkpoint of step 64 cannot be written" in done.stderr
    assert "the last one is that of step 48" in done.stderr
    assert checkpoint_steps(tmp_path / "run")[-1] == 160
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["step", *map(str, range(16, 161, 16))]


def test_a_disk_that_stays_full_costs_what_follows_the_last_checkpoint(tmp_path: Path) -> None:
    done = on_a_full_disk(tmp_path / "run", 2000, -1)
    assert done.returncode == 1
    assert "TrainingError" in done.stderr.splitlines()[-1]
    assert "cannot be written: " in done.stderr.splitlines()[-1]
    assert checkpoint_steps(tmp_path / "run") == [16, 32, 48]
    load_policy(tmp_path / "run")
    assert load_yaml(tmp_path / "run" / "config.yaml")["total_steps"] == 160
    with RecurrentPPO.load(tmp_path / "run", Acting) as agent:
        assert agent.learn().steps_done == 160


class Failing:
    """A destination of metrics that fails from one step on."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def write(self, step: int, metrics: Any) -> None:
        if step > 2:
            raise ConnectionError("the server is gone")
        self.steps.append(step)

    def close(self) -> None:
        return


def test_a_logger_that_fails_is_told_once_and_training_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken, other = Failing(), Failing()
    other.write = lambda step, metrics: other.steps.append(step)  # type: ignore[method-assign]
    with Logger([broken, other]) as logger:
        for step in range(1, 6):
            logger.log(step, {"x": np.float32(1)})
    assert broken.steps == [1, 2] and other.steps == [1, 2, 3, 4, 5]
    assert capsys.readouterr().err == "Failing: step 3 is not logged: the server is gone\n"


def test_saving_over_a_run_replaces_it_when_told_to(tmp_path: Path) -> None:
    for overwrite in (False, True, True):
        with make(tmp_path / "unused", logger={"kind": "none"}) as agent:
            agent._run_dir = None
            assert agent.save(tmp_path / "demo", overwrite=overwrite) == tmp_path / "demo"
    load_policy(tmp_path / "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize("name", ["precious.txt", "config.yaml"])
def test_what_is_no_run_is_not_replaced(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "thesis.tex").write_text("keep me")
    (folder / name).write_text("keep me too")
    with make(tmp_path / "unused") as agent, pytest.raises(ValueError, match="is replaced"):
        agent.save(folder, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted(["thesis.tex", name])


def test_replacing_a_run_that_cannot_be_written_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(tmp_path / "unused") as agent:
        agent.save(tmp_path / "demo")
        agent.steps_done = 99

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with make(tmp_path / "unused") as other, monkeypatch.context() as patch:
        patch.setattr(run_module, "write_checkpoint", full)
        with pytest.raises(TrainingError, match="No space left on device"):
            other.save(tmp_path / "demo", overwrite=True)
    load_policy(tmp_path / "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
