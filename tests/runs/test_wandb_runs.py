"""Whose W&B run it is: the user's is logged into and left open, ours is closed."""

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import wandb

from xlstm_rl import RecurrentPPO
from xlstm_rl.runs.loggers import Logger, LoggerConfig, make_logger
from xlstm_rl.runs.loggers.config import WandbConfig
from xlstm_rl.runs.loggers.wandb_logger import WandbSink

CONFIG = {"seed": 3, "env": {"id": "CartPole-v1"}, "memory": {"kind": "xlstm"}}


pytestmark = pytest.mark.usefixtures("no_wandb_account")


def users_run(tmp_path: Path, **options: Any) -> Any:
    settings = wandb.Settings(console="off", silent=True)
    return wandb.init(
        project="mine", dir=str(tmp_path), mode="offline", settings=settings, **options
    )


def logger(folder: Path, config: dict[str, Any] = CONFIG) -> Logger:
    return make_logger(LoggerConfig(kind="wandb"), folder, config)


def logged(run: Any, key: str) -> Any:
    return dict(run.summary).get(key)


def test_a_users_run_is_logged_into_and_left_open(tmp_path: Path, folder: Path) -> None:
    run = users_run(tmp_path)
    with logger(folder) as ours:
        ours.log(128, {"episode/return": 1.5})
    assert wandb.run is run
    run.log({"own": 2.0})  # refused by a finished run
    assert (logged(run, "episode/return"), logged(run, "step")) == (1.5, 128)
    assert logged(run, "own") == 2.0
    assert not (folder / "wandb").exists()
    run.finish()
    assert wandb.run is None


def test_the_axis_of_a_users_own_metrics_is_left_alone(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = users_run(tmp_path)
    defined: list[tuple[str, str]] = []
    monkeypatch.setattr(
        run, "define_metric", lambda name, step_metric: defined.append((name, step_metric))
    )
    with logger(folder) as ours:
        ours.log(1, {"episode/return": 1.5})
        ours.log(2, {"episode/return": 1.5, "loss/value": 0.1})
    assert defined == [("episode/return", "step"), ("loss/value", "step")]


def test_the_configuration_joins_the_users_and_overwrites_nothing(
    tmp_path: Path, folder: Path
) -> None:
    run = users_run(tmp_path, config={"seed": 99, "env": "mine", "note": "x"})
    with logger(folder):
        config = dict(run.config)
    assert (config["seed"], config["env"], config["note"]) == (99, "mine", "x")
    assert config["memory"] == {"kind": "xlstm"}
    assert config["xlstm_rl.seed"] == 3
    assert config["xlstm_rl.env"] == {"id": "CartPole-v1"}
    with logger(folder, {**CONFIG, "seed": 4}):  # a second agent in the same run
        assert run.config["xlstm_rl.seed"] == 4
        assert "xlstm_rl.memory" not in dict(run.config)


def test_agents_without_a_users_run_have_one_each(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("a", "b"))
    first.mkdir()
    second.mkdir()
    one, other = logger(first), logger(second)
    one.log(1, {"x": 1.0})
    other.log(1, {"x": 2.0})
    one.close()
    other.log(2, {"x": 3.0})
    other.close()
    assert wandb.run is None
    assert [len(list(path.glob("wandb/offline-run-*"))) for path in (first, second)] == [1, 1]


def test_a_run_of_ours_that_is_closed_is_not_taken_for_a_users(folder: Path) -> None:
    for _ in range(2):
        with logger(folder) as ours:
            ours.log(1, {"x": 1.0})
            assert wandb.run is not None
        assert wandb.run is None


def test_a_users_next_run_gets_what_follows(tmp_path: Path, folder: Path) -> None:
    first = users_run(tmp_path)
    with logger(folder) as ours:
        ours.log(1, {"x": 1.0})
        first.finish()
        second = users_run(tmp_path)
        ours.log(2, {"x": 2.0})
        assert logged(second, "x") == 2.0
        assert second.config["memory"] == {"kind": "xlstm"}
    assert wandb.run is second


def test_what_follows_a_run_that_the_user_finished_goes_to_one_of_ours(
    tmp_path: Path, folder: Path
) -> None:
    first = users_run(tmp_path)
    with logger(folder) as ours:
        first.finish()
        ours.log(1, {"x": 1.0})
        assert len(list(folder.glob("wandb/offline-run-*"))) == 1
    assert wandb.run is None


def test_calls_of_learn_share_a_run_until_close(tmp_path: Path) -> None:
    agent = RecurrentPPO(
        "CartPole-v1",
        run_dir=str(tmp_path / "run"),
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "epochs": 1, "minibatches": 1},
        logger={"kind": "wandb"},
    )
    for _ in range(3):
        agent.learn(16)
    assert wandb.run is not None
    agent.close()
    assert wandb.run is None
    assert len(list(tmp_path.glob("run/wandb/offline-run-*"))) == 1


def test_a_script_that_closes_nothing_ends_quietly(tmp_path: Path) -> None:
    script = """
        from xlstm_rl import RecurrentPPO

        agent = RecurrentPPO(
            "CartPole-v1", run_dir="run", logger={"kind": "wandb"}, env={"num_envs": 2},
            memory={"width": 8, "num_heads": 2}, agent={"rollout_steps": 8, "minibatches": 1},
        ).learn(16)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={**os.environ, "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("wandb: recording offline; `wandb sync ")
    assert len(list(tmp_path.glob("run/wandb/offline-run-*/*.wandb"))) == 1


def test_the_folder_of_a_run_is_absolute_for_the_process_that_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: dict[str, Any] = {}
    monkeypatch.setattr(wandb, "init", lambda **options: asked.update(options))
    with contextlib.suppress(AttributeError):  # there is no run to go on with
        WandbSink(WandbConfig(), Path("runs/a"), {})
    assert asked["dir"] == str(tmp_path / "runs" / "a")
