"""Agents that are copied go on alone; agents that are pickled say what to do."""

import copy
import csv
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.base import RecurrentAgent

CSV = {"logger": {"kind": "csv"}}


def make(cls: Any = RecurrentPPO, **changed: Any) -> RecurrentAgent:
    sections = {
        "env": {"num_envs": 2},
        "memory": {"kind": "gru", "width": 8},
        "agent": {"rollout_steps": 8},
        "logger": {"kind": "none"},
        **changed,
    }
    agent: RecurrentAgent = cls("CartPole-v1", **sections)
    return agent


def weights(agent: RecurrentAgent) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in agent.parameters])


def steps(run: Path) -> list[str]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row["step"] for row in csv.DictReader(file)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("cls", [RecurrentPPO, RecurrentA2C])
@pytest.mark.parametrize("before", [0, 32])
@pytest.mark.parametrize("logged", [False, True])
def test_a_deep_copy_trains_on_to_the_bit_and_by_itself(
    cls: Any, before: int, logged: bool, tmp_path: Path
) -> None:
    options: dict[str, Any] = {**CSV, "run_dir": str(tmp_path / "run")} if logged and before else {}
    with make(cls, **options) as agent:
        if before:
            agent.learn(before)
        with copy.deepcopy(agent) as copied:
            assert type(copied) is cls and copied.steps_done == before
            at_first = weights(copied)
            agent.learn(64)
            assert torch.equal(weights(copied), at_first)
            copied.learn(64)
            assert torch.equal(weights(copied), weights(agent))
            assert not torch.equal(weights(copied), at_first)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "tensorboard"])
@pytest.mark.parametrize("closed", [False, True])
def test_a_copy_writes_nothing_where_the_first_one_writes(
    kind: str, closed: bool, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    agent = make(logger={"kind": kind}, run_dir=str(run), checkpoint={"every_steps": 16})
    with agent:
        agent.learn(32)
        if closed:
            agent.close()
        before = contents(run)
        copied = copy.deepcopy(agent)
        assert copied.run_dir is None and copied.config.logger.kind == "none"
        copied.learn(32)
        assert contents(run) == before
        assert agent.run_dir == run and agent.config.logger.kind == kind
        agent.learn(32)
    copied.save(tmp_path / "other")
    with RecurrentPPO.load(tmp_path / "other", total_steps=96) as loaded:
        assert loaded.config.logger.kind == "none"
        loaded.learn()
    assert loaded.steps_done == 96


def test_the_first_one_of_two_logs_each_row_once(tmp_path: Path) -> None:
    with make(**CSV, run_dir=str(tmp_path / "run")) as agent:
        agent.learn(32)
        copied = copy.deepcopy(agent)
        copied.learn(32)
        agent.learn(32)
        assert torch.equal(weights(copied), weights(agent))
    assert steps(tmp_path / "run") == ["16", "32", "48", "64"]


def test_a_copy_of_a_run_that_goes_on_leaves_it_alone(tmp_path: Path) -> None:
    with make(**CSV, run_dir=str(tmp_path / "run")) as agent:
        agent.learn(32)
    with RecurrentPPO.load(tmp_path / "run", total_steps=64) as loaded:
        before = contents(tmp_path / "run")
        copied = copy.deepcopy(loaded)
        copied.learn()
        assert copied.steps_done == 64 and contents(tmp_path / "run") == before


def test_what_cannot_be_copied_is_named() -> None:
    with (
        make(env={"num_envs": 2, "vectorization": "async"}) as agent,
        pytest.raises(
            TypeError, match=r"RecurrentPPO was to be copied, and its env cannot be .*\.load\(fold"
        ),
    ):
        copy.deepcopy(agent)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_an_open_run_says_to_save(protocol: int, tmp_path: Path) -> None:
    agent = make(RecurrentA2C, run_dir=str(tmp_path / "run"))
    agent.open_run()
    with (
        agent,
        pytest.raises(TypeError, match=r"save\(folder\) writes it and RecurrentA2C\.load") as said,
    ):
        pickle.dumps(agent, protocol)
    assert "\n" not in str(said.value)
    assert pickle.loads(pickle.dumps(agent.policy))


def test_a_shallow_copy_shares_everything() -> None:
    agent = make()
    copied = copy.copy(agent)
    assert type(copied) is RecurrentPPO and vars(copied) == vars(agent)
