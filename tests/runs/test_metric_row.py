"""A row of metrics for several updates: what it holds, and that a resumed run has the same rows."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.runs.metric_row import MetricRow

ROLLOUT = 16  # steps: 2 environments, 8 steps each


def agent_of(run: Path, algorithm: Any = RecurrentA2C, **agent: Any) -> Any:
    return algorithm(
        "xlstm_rl/CartPoleNoVel-v1",
        total_steps=20 * ROLLOUT,
        run_dir=str(run),
        env={"num_envs": 2, "max_episode_steps": 11},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, **agent},
        logger={"kind": "csv,jsonl,tensorboard"},
    )


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "time/sps"} for row in csv.DictReader(file)]


def test_a_row_is_the_mean_of_its_updates_and_episodes_are_the_latest() -> None:
    row = MetricRow(3)
    nan = math.nan
    assert not row.add(10, {"loss": 1.0, "time/sps": 100.0, "episode/return": 5.0, "ev": nan}, 1)
    assert not row.add(20, {"loss": 2.0, "time/sps": 50.0, "episode/return": 9.0, "ev": 0.5}, 2)
    assert row.add(30, {"loss": 6.0, "time/sps": 100.0, "episode/return": 7.0, "ev": nan}, 3)
    # 30 steps in .1 + .2 + .1 seconds
    expected = {"loss": 3.0, "time/sps": 75.0, "episode/return": 7.0, "ev": 0.5}
    assert row.take() == (30, pytest.approx(expected))
    assert row.take() is None


def test_a_metric_that_appears_ends_the_row_at_its_own_step() -> None:
    row = MetricRow(4)
    assert not row.add(10, {"loss": 1.0}, 1)
    assert row.add(20, {"loss": 3.0, "evaluation/return": 8.0}, 2)
    assert row.take() == (20, {"loss": 2.0, "evaluation/return": 8.0})
    assert not row.add(30, {"loss": 5.0}, 3)
    assert row.add(40, {"loss": 7.0}, 4)
    assert row.take() == (40, {"loss": 6.0})


def test_a_row_that_was_begun_goes_on_from_its_state() -> None:
    row, whole = MetricRow(4), MetricRow(4)
    for update in (1, 2, 3):
        row.add(update, {"loss": float(update)}, update)
        whole.add(update, {"loss": float(update)}, update)
    again = MetricRow(4)
    again.load_state(row.state())
    assert again.rows_until(3) == 0
    assert again.add(4, {"loss": 9.0}, 4) and whole.add(4, {"loss": 9.0}, 4)
    assert again.take() == whole.take() == (4, {"loss": 3.75})
    assert again.rows_until(4) == 4


def test_a2c_logs_the_mean_of_four_updates_and_ppo_each() -> None:
    with (
        RecurrentA2C("CartPole-v1", logger="none") as a2c,
        RecurrentPPO("CartPole-v1", logger="none") as ppo,
    ):
        assert (a2c.algorithm.log_interval, ppo.algorithm.log_interval) == (4, 1)


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
def test_rows_of_several_updates_are_the_means_of_the_rows_of_single_ones(
    algorithm: Any, tmp_path: Path
) -> None:
    for name, interval in (("single", 1), ("several", 3)):
        with agent_of(tmp_path / name, algorithm, log_interval=interval) as agent:
            agent.learn(8 * ROLLOUT)
    single, several = rows(tmp_path / "single"), rows(tmp_path / "several")
    assert [int(row["step"]) // ROLLOUT for row in single] == list(range(1, 9))
    # at multiples of three, where memories are measured again (8), and at the end
    assert [int(row["step"]) // ROLLOUT for row in several] == [3, 6, 8]
    for name in ("loss/value", "loss/entropy"):
        values = [float(row[name]) for row in single]
        expected = [sum(values[:3]) / 3, sum(values[3:6]) / 3, sum(values[6:]) / 2]
        assert [float(row[name]) for row in several] == pytest.approx(expected)
    latest = [single[i]["episode/return"] for i in (2, 5, 7)]
    assert [row["episode/return"] for row in several] == latest
    episodes = [(tmp_path / name / "episodes.csv").read_text() for name in ("single", "several")]
    assert len(episodes[0].splitlines()) == len(episodes[1].splitlines()) > 8


def test_an_interrupted_run_has_the_rows_of_one_that_was_not(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with agent_of(tmp_path / "whole", log_interval=5) as agent:
        agent.learn()
    with agent_of(tmp_path / "parts", log_interval=5) as agent:
        agent.learn(7 * ROLLOUT)
    assert [int(row["step"]) // ROLLOUT for row in rows(tmp_path / "parts")] == [5, 7]
    for updates in (4, 2, 7):  # 11, 13, 20
        with RecurrentA2C.load(tmp_path / "parts") as agent:
            agent.learn(updates * ROLLOUT)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    steps = [int(row["step"]) for row in rows(tmp_path / "whole")]
    for run in ("whole", "parts"):
        lines = (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == len(steps)
        shown = EventAccumulator(str(tmp_path / run / "tensorboard")).Reload()
        assert [one.step for one in shown.Scalars("loss/value")] == steps


def test_a_callback_that_raises_leaves_a_row_of_what_was_trained(tmp_path: Path) -> None:
    def stop(step: int, metrics: dict[str, float]) -> None:
        if step == 2 * ROLLOUT:
            raise ValueError("enough")

    agent = agent_of(tmp_path / "run")
    with agent, pytest.raises(Exception, match="enough"):
        agent.learn(on_update=stop)
    assert [int(row["step"]) // ROLLOUT for row in rows(tmp_path / "run")] == [2]
