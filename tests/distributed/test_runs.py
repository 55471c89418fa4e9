"""Runs of several processes: one folder, one checkpoint, and what ends them."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from xlstm_rl import RecurrentPPO
from xlstm_rl.cli import main
from xlstm_rl.config import ConfigError
from xlstm_rl.errors import TrainingError
from xlstm_rl.runs.folder import checkpoint_steps
from xlstm_rl.runs.lock import LOCK_FILE

from ..same import assert_same

ROLLOUT = 2 * 2 * 8  # processes, environments, steps


def make(run: Path | None, **options: Any) -> RecurrentPPO:
    return RecurrentPPO(
        "xlstm_rl/CartPoleNoVel-v1",
        seed=5,
        run_dir=None if run is None else str(run),
        total_steps=8 * ROLLOUT,
        env={"num_envs": 2, "max_episode_steps": 11},
        memory={"pattern": "m", "width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 2, "segment_steps": 4, "epochs": 2, **options},
        logger={"kind": "none" if run is None else "csv"},
    )


def state_of(agent: RecurrentPPO) -> dict[str, Any]:
    state = agent.trainer_state()
    del state["generators"]["global"]
    del state["collector"]["environments"]
    del state["config"]
    del state["budget"]
    return {**state, "weights": agent.policy.state_dict()}


def run_and_go_on(folder: Path) -> dict[str, Any]:
    """Train in one go, and in two with a checkpoint between."""
    with make(folder / "whole") as whole:
        whole.learn()
        expected = state_of(whole)
    with make(folder / "run") as agent:
        agent.learn(on_update=lambda step, _: step < 3 * ROLLOUT)
    with RecurrentPPO.load(folder / "run") as again:
        again.learn()
        found = state_of(again)
    return {"whole": expected, "run": found}


@pytest.fixture(scope="module")
def runs(
    in_ranks: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("runs")
    return folder, in_ranks(partial(run_and_go_on, folder))


def rows(run: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    with (run / name).open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in ("time/sps", "time")}
            for row in csv.DictReader(file)
        ]


def test_a_run_of_two_processes_goes_on_to_the_bit(runs: tuple[Path, list[Any]]) -> None:
    folder, answers = runs
    for answer in answers:
        assert_same(answer["run"], answer["whole"])
    assert rows(folder / "run") == rows(folder / "whole")
    assert rows(folder / "run", "episodes.csv") == rows(folder / "whole", "episodes.csv")


def test_steps_and_episodes_are_those_of_all_processes(runs: tuple[Path, list[Any]]) -> None:
    run = runs[0] / "whole"
    assert [int(row["step"]) for row in rows(run)] == [ROLLOUT * (i + 1) for i in range(8)]
    assert {row["environment"] for row in rows(run, "episodes.csv")} == {"0", "1", "2", "3"}
    steps = [int(row["step"]) for row in rows(run, "episodes.csv")]
    assert steps == sorted(steps) and steps[-1] <= 8 * ROLLOUT
    assert not (run / LOCK_FILE).exists()


def test_processes_play_and_sample_differently_with_the_same_weights(
    runs: tuple[Path, list[Any]],
) -> None:
    first, second = (answer["whole"] for answer in runs[1])
    assert_same(first["weights"], second["weights"])
    assert_same(first["optimizer"], second["optimizer"])
    assert_same(first["recent_episodes"], second["recent_episodes"])
    for name in ("actions", "shuffling"):
        assert not torch.equal(first["generators"][name], second["generators"][name])
    assert not torch.equal(*(one["collector"]["carried"]["arrays"] for one in (first, second)))


def go_on(run: Path, other: Path) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), RecurrentPPO.load(run, run_dir=str(other)) as agent:
        agent.learn(2 * agent._budget.rollout)
        return agent.steps_done, said.getvalue()


@pytest.mark.slow
def test_another_number_of_processes_goes_on(
    runs: tuple[Path, list[Any]], in_ranks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    run, before = runs[0] / "whole", 8 * ROLLOUT
    assert go_on(run, tmp_path / "one")[0] == before + 2 * 16
    assert "the run had 2 processes and has 1" in go_on(run, tmp_path / "one more")[1]
    answers = in_ranks(partial(go_on, run, tmp_path / "three"), 3)
    assert [steps for steps, _ in answers] == [before + 2 * 48] * 3
    assert "new episodes begin in process 2 of 3" in answers[0][1]
    assert not answers[1][1] and not answers[2][1]


def disagree() -> str:
    with make(None, epochs=2 + dist.get_rank()) as agent, pytest.raises(ConfigError) as refused:
        agent.learn()
    return str(refused.value)


def stop_in_one() -> int:
    with make(None) as agent:
        agent.learn(on_update=lambda step, _: dist.get_rank() == 0 or step < 3 * ROLLOUT)
        return agent.steps_done


def command(*words: str) -> tuple[Any, str]:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            status: Any = main(list(words))
        except SystemExit as exit:
            status = exit.code
    return status, said.getvalue()


def one_after_the_other(folder: Path) -> dict[str, Any]:
    """What needs no process of its own, for they take seconds to start."""
    small = ("--memory.width", "16", "--policy.head-width", "16", "--total-steps", "1")
    rank = dist.get_rank()
    return {
        "disagree": disagree(),
        "stop": stop_in_one(),
        "typo": command("train", "--memory.kind", "xltsm"),
        "options": command("train", "--seed", str(rank), "--run-dir", str(folder / "options")),
        "one": command("train", *(("--nothing", "1") if rank else ())),
        "batch": command("train", "--env.num-envs", "8", "--agent.minibatches", "3"),
        "none": command("train", "--env.num-envs", "0"),
        "train": command("train", *small, "--run-dir", str(folder / "run")),
        "taken": command("train", *small, "--run-dir", str(folder / "run")),
        "resume": command("resume", str(folder / "run"), "--total-steps", "5000"),
    }


@pytest.fixture(scope="module")
def said(
    in_ranks: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("commands")
    return folder, in_ranks(partial(one_after_the_other, folder))


@pytest.mark.slow
def test_processes_with_different_options_are_refused(said: tuple[Path, list[Any]]) -> None:
    folder, answers = said
    for answer in answers:
        assert answer["disagree"].startswith("process 1 differs from process 0 in agent.epochs: 3")
    assert [answer["options"][0] for answer in answers] == [2, 2]
    assert answers[0]["options"][1].count("\n") == 1 and "in seed: 1" in answers[0]["options"][1]
    assert not (folder / "options").exists()


def test_one_process_stops_all(said: tuple[Path, list[Any]]) -> None:
    assert [answer["stop"] for answer in said[1]] == [3 * ROLLOUT] * 2


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("typo", "did you mean"),
        ("one", "process 1 of 2: "),
        ("taken", "is not empty"),
        ("batch", "agent.minibatches=3 does not divide the 8 sequences"),
        ("none", "env.num_envs"),
    ],
)
def test_bad_input_is_one_line_of_one_process(
    name: str, line: str, said: tuple[Path, list[Any]]
) -> None:
    (status, text), (other, nothing) = (answer[name] for answer in said[1])
    assert (status, other, nothing) == (2, 2, "")
    assert text.count("\n") == 1 and line in text


def test_commands_train_and_go_on_in_one_folder(said: tuple[Path, list[Any]]) -> None:
    folder, answers = said
    assert [answer[name][0] for answer in answers for name in ("train", "resume")] == [0] * 4
    assert checkpoint_steps(folder / "run") == [2048, 4096]
    assert [answer["resume"][1] for answer in answers][1] == ""


def die(run: Path) -> str:
    def on_update(step: int, _: dict[str, float]) -> None:
        if dist.get_rank() == 1 and step == 3 * ROLLOUT:
            os.kill(os.getpid(), signal.SIGKILL)

    with make(run) as agent, pytest.raises(TrainingError) as ended:
        agent.learn(on_update=on_update)
    return str(ended.value)


def test_a_killed_process_ends_the_run_with_a_line_and_a_checkpoint(
    in_ranks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    line, nothing = in_ranks(partial(die, tmp_path / "run"), dies=True)
    assert line.startswith("process 0 of 2: another one has ended") and nothing is None
    assert checkpoint_steps(tmp_path / "run")[-1] == 3 * ROLLOUT
    with RecurrentPPO.load(tmp_path / "run") as agent:
        agent.learn(16)
        assert agent.steps_done == 3 * ROLLOUT + 16
