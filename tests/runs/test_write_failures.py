"""What cannot be written, by a full disk or a failing server, and what is written over."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlstm_rl import PeriodicCheckpoint, RecurrentPPO, load_policy
from xlstm_rl.config import load_yaml
from xlstm_rl.errors import TrainingError
from xlstm_rl.runs import run as run_module
from xlstm_rl.runs.folder import checkpoint_steps
from xlstm_rl.runs.loggers import Logger
from xlstm_rl.runs.trainer_state import TRAINER_FILE


def make(run: Path, **others: Any) -> RecurrentPPO:
    return RecurrentPPO(
        "CartPole-v1",
        total_steps=160,
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
        **{"run_dir": str(run), "logger": {"kind": "csv"}, **others},
    )


FULL_DISK = """
    import resource, sys
    import test_write_failures as test
    from pathlib import Path

    run = Path(sys.argv[1])
    agent = test.make(run, checkpoint={"every_steps": 16})

    def on_update(step, metrics):
        if step == 64:  # no file can grow beyond this: to a process, a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        if step == int(sys.argv[3]):
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

    with agent:
        agent.learn(on_update=on_update)
    print(agent.steps_done)
"""


def on_a_full_disk(run: Path, size: int, until: int) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(run), str(size), str(until)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
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
    with RecurrentPPO.load(tmp_path / "run") as agent:
        assert agent.learn().steps_done == 160


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full: Linux")
def test_a_disk_that_is_full_at_the_last_file_of_a_checkpoint_is_called_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(folder: Path, policy: Any, state: Any) -> None:
        (folder / TRAINER_FILE).symlink_to("/dev/full")
        write_checkpoint(folder, policy, state)

    write_checkpoint = run_module.write_checkpoint
    with make(tmp_path / "run", checkpoint={"every_steps": 0}) as agent:
        agent.learn(32)
        monkeypatch.setattr(run_module, "write_checkpoint", write)
        assert not agent.checkpoint()
    told = capsys.readouterr().err
    assert "cannot be written: No space left on device; the last one is that of step 32" in told


@pytest.mark.parametrize("kind", ["PeriodicCheckpoint", "a function"])
def test_a_checkpoint_that_a_callback_cannot_write_costs_no_training(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[int] = []
    answers: list[bool] = []

    def full_for_a_while(folder: Path, policy: Any, state: Any) -> None:
        if 32 <= state["steps_done"] < 96:
            raise OSError(28, "No space left on device")
        written.append(state["steps_done"])
        write_checkpoint(folder, policy, state)

    write_checkpoint = run_module.write_checkpoint
    monkeypatch.setattr(run_module, "write_checkpoint", full_for_a_while)
    with make(tmp_path / "run", checkpoint={"every_steps": 0}) as agent:
        callback: Any = PeriodicCheckpoint(32)
        if kind == "a function":
            callback = lambda step, _: answers.append(agent.checkpoint())  # noqa: E731
        agent.learn(callbacks=callback)
    assert agent.steps_done == 160 and written[-1] == 160
    told = capsys.readouterr().err
    assert "the checkpoint of step 64 cannot be written: No space left on device" in told
    if answers:
        assert answers == [True, *[False] * 4, *[True] * 5]


def test_without_a_run_folder_a_checkpoint_is_none(tmp_path: Path) -> None:
    with make(tmp_path / "unused", run_dir=None, logger={"kind": "none"}) as agent:
        assert agent.checkpoint() is False


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


@pytest.mark.parametrize("kind", ["csv", "jsonl", "csv,jsonl,tensorboard"])
def test_loggers_leave_whole_rows_on_a_disk_that_is_full_and_close(
    kind: str, tmp_path: Path
) -> None:
    code = """
        import resource, sys
        from pathlib import Path
        from xlstm_rl.runs.loggers import LoggerConfig, make_logger

        with make_logger(LoggerConfig(sys.argv[1]), sys.argv[2], {}) as logger:
            for step in range(1, 200):
                logger.log(step, {"some/metric": step / 3, "another/metric": step / 7})
                if step in (20, 150):
                    room = 1500 if step == 20 else resource.RLIM_INFINITY
                    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
            logger.log(200, {"some/metric": 1.0, "another/metric": 1.0})
    """
    words = [sys.executable, "-c", textwrap.dedent(code), kind, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "is not logged: " in done.stderr and "Traceback" not in done.stderr
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["step", *map(str, range(1, 200))]
    if "jsonl" in kind:
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert steps == sorted(set(steps)) and {*range(1, 15), *range(151, 200)} <= set(steps)
