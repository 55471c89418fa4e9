"""Where schedules end: as it was asked for, also where a run goes on."""

from pathlib import Path
from typing import Any

import pytest

from xlstm_rl import RecurrentPPO
from xlstm_rl.agents import make_agent
from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.agents.step_budget import StepBudget
from xlstm_rl.cli import main
from xlstm_rl.config import config_from_dict, load_yaml

ROLLOUT = 16  # steps: 2 environments, 8 steps each
OPTIONS: dict[str, Any] = {
    "env": {"num_envs": 2},
    "memory": {"kind": "mlp", "width": 8},
    "agent": {"rollout_steps": 8, "epochs": 1, "minibatches": 1},
}


def make(run: Path, **others: Any) -> RecurrentPPO:
    return RecurrentPPO("CartPole-v1", run_dir=str(run), **{**OPTIONS, **others})


def rates(agent: RecurrentAgent, *steps: int, stop: int = 0, **call: Any) -> list[float]:
    """The share of its start that the learning rate has in each update."""
    seen: list[float] = []

    def on_update(step: int, metrics: dict[str, float]) -> bool:
        full = agent.config.agent.learning_rate
        seen.append(round(metrics["schedule/learning_rate"] / full, 6))
        return step != stop

    agent.learn(*steps, on_update=on_update, **call)
    return seen


def test_a_horizon_of_the_configuration_ends_schedules_before_the_training(tmp_path: Path) -> None:
    with make(tmp_path / "a", total_steps=6 * ROLLOUT, horizon=3 * ROLLOUT) as agent:
        assert rates(agent) == [1, 0.666667, 0.333333, 0, 0, 0]
    config = config_from_dict(TrainConfig, load_yaml(tmp_path / "a" / "config.yaml"))
    assert (config.total_steps, config.horizon) == (6 * ROLLOUT, 3 * ROLLOUT)
    with make_agent(config_from_dict(TrainConfig, {**OPTIONS, "horizon": 2 * ROLLOUT})) as agent:
        assert rates(agent, 4 * ROLLOUT) == [1, 0.5, 0, 0]


def test_the_option_of_the_command_is_heeded(tmp_path: Path) -> None:
    words = ["--env.num-envs", "2", "--memory.kind", "mlp", "--agent.rollout-steps", "8"]
    words += ["--total-steps", str(4 * ROLLOUT), "--horizon", str(2 * ROLLOUT)]
    assert main(["train", *words, "--run-dir", str(tmp_path / "run")]) == 0
    with RecurrentPPO.load(tmp_path / "run") as agent:
        assert rates(agent, 2 * ROLLOUT) == [0, 0]


@pytest.mark.parametrize("where", ["of the call", "of the configuration", "none"])
def test_a_run_that_was_cut_short_goes_on_along_its_schedules(tmp_path: Path, where: str) -> None:
    total: dict[str, Any] = {"total_steps": 6 * ROLLOUT}
    call: dict[str, Any] = {}
    if where == "of the call":
        call["horizon"] = 3 * ROLLOUT
    elif where == "of the configuration":
        total["horizon"] = 3 * ROLLOUT
    with make(tmp_path / "whole", **total) as agent:
        whole = rates(agent, 5 * ROLLOUT, **call)
        behind = rates(agent, 2 * ROLLOUT)
    with make(tmp_path / "parts", **total) as agent:
        parts = rates(agent, 5 * ROLLOUT, stop=2 * ROLLOUT, **call)
    with RecurrentPPO.load(tmp_path / "parts") as agent:
        parts += rates(agent)
    with RecurrentPPO.load(tmp_path / "parts") as agent:
        assert (parts, rates(agent, 2 * ROLLOUT)) == (whole, behind)


def test_a_longer_training_anneals_over_it_but_for_a_horizon_that_was_asked_for(
    tmp_path: Path,
) -> None:
    with make(tmp_path / "part", total_steps=4 * ROLLOUT) as agent:
        agent.learn(2 * ROLLOUT)
    assert load_yaml(tmp_path / "part" / "config.yaml")["horizon"] == 4 * ROLLOUT
    with RecurrentPPO.load(tmp_path / "part", total_steps=8 * ROLLOUT) as agent:
        assert rates(agent) == [0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    with make(tmp_path / "asked", total_steps=2 * ROLLOUT, horizon=4 * ROLLOUT) as agent:
        agent.learn()
    with RecurrentPPO.load(tmp_path / "asked", total_steps=6 * ROLLOUT) as agent:
        assert rates(agent) == [0.5, 0.25, 0, 0]
    with RecurrentPPO.load(tmp_path / "asked", total_steps=8 * ROLLOUT, horizon=None) as agent:
        assert rates(agent, ROLLOUT) == [0.25]


def test_a_state_of_before_has_its_end_in_the_configuration() -> None:
    said = {"total_steps": 32, "horizon": 64}
    budget = StepBudget(ROLLOUT, 32, 64)
    budget.load_state(32, {"last": 32, "left_over": 0}, said)
    budget.start(32, 16)
    assert budget.progress(32) == 0.5
    budget.start(32, 96)
    assert budget.progress(64) == 0.5
