"""What is saved between a rollout and the end of its update, and how a run goes on from there."""

import csv
import os
from pathlib import Path
from typing import Any

import pytest

from xlstm_rl import Callback, PeriodicCheckpoint, RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.errors import CallbackError

ROLLOUT = 16  # steps: 2 environments, 8 steps each
OPTIONS: dict[str, Any] = {
    "env": {"num_envs": 2},
    "memory": {"kind": "gru", "width": 8},
    "logger": {"kind": "csv"},
    "total_steps": 12 * ROLLOUT,
    "checkpoint": {"every_steps": 0},
}


def make(cls: type[RecurrentAgent], run: Path, **agent: Any) -> RecurrentAgent:
    agent = {"rollout_steps": 8, **agent}
    return cls("CartPole-v1", run_dir=str(run), agent=agent, **OPTIONS)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "time/sps"} for row in csv.DictReader(file)]


class _KilledError(BaseException):
    """Ends a process, as far as its run can tell: nothing is saved behind it."""


class Saves(Callback):
    """Writes a checkpoint where a rollout ends that is not trained on yet, and is killed."""

    def __init__(self, at: int) -> None:
        self._left = at

    def on_rollout_end(self, rollout: Any) -> bool | None:
        self._left -= 1
        if self._left == 0:
            self.agent.checkpoint()
            raise _KilledError
        return None


def test_a_rollout_that_was_saved_before_its_update_is_said_to_be_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = make(RecurrentPPO, tmp_path / "run", epochs=1)
    with agent, pytest.raises((_KilledError, CallbackError)):
        agent.learn(callbacks=Saves(3))
    capsys.readouterr()
    with RecurrentPPO.load(tmp_path / "run") as loaded:
        assert loaded.steps_done == 2 * ROLLOUT
        loaded.learn()
    assert "new episodes begin: the run was saved before its last rollout" in (
        capsys.readouterr().err
    )


def test_a_stop_within_an_update_says_so_and_begins_new_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = make(RecurrentPPO, tmp_path / "run", epochs=1)
    update = agent.update

    def stopped(rollout: Any, progress: float) -> dict[str, float]:
        metrics = update(rollout, progress)
        if agent.steps_done == 2 * ROLLOUT:
            raise KeyboardInterrupt
        return metrics

    agent.update = stopped  # type: ignore[method-assign]
    with agent, pytest.raises(KeyboardInterrupt):
        agent.learn()
    capsys.readouterr()
    with RecurrentPPO.load(tmp_path / "run") as loaded:
        assert loaded.steps_done == 2 * ROLLOUT
        loaded.learn()
    assert "new episodes begin: the run was saved before its last" in capsys.readouterr().err


@pytest.mark.parametrize("at", [5, 6, 8])
@pytest.mark.parametrize("is_told_first", [True, False])
def test_a_checkpoint_of_a_callback_holds_the_row_of_its_update(
    tmp_path: Path, at: int, is_told_first: bool
) -> None:
    def train(agent: RecurrentAgent, *more: Any) -> None:
        score = [lambda step, _: agent.log({"my/score": 7.0})]
        saves: list[Any] = [PeriodicCheckpoint(at * ROLLOUT), *more]
        agent.learn(callbacks=score + saves if is_told_first else saves + score)

    def kill(step: int, _: Any) -> None:
        if step == (at + 1) * ROLLOUT:
            os._exit(9)

    with make(RecurrentA2C, tmp_path / "whole", log_interval=4) as agent:
        train(agent)
    child = os.fork()
    if child == 0:
        train(make(RecurrentA2C, tmp_path / "parts", log_interval=4), kill)
    os.waitpid(child, 0)
    with RecurrentA2C.load(tmp_path / "parts") as loaded:
        assert loaded.steps_done == at * ROLLOUT
        train(loaded)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
