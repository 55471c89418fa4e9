import csv
import gc
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents import TrainConfig, make_agent
from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.agents.config import A2CConfig, PPOConfig
from xlstm_rl.config import ConfigError
from xlstm_rl.envs import EnvConfig
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.runs.loggers import LoggerConfig

SMALL: dict[str, Any] = {
    "env": {"num_envs": 2},
    "memory": {"width": 8, "num_heads": 2},
    "agent": {"rollout_steps": 8, "epochs": 1, "minibatches": 1},
    "logger": {"kind": "none"},
}
ROLLOUT = 16  # steps: 2 environments, 8 steps each


def small(**others: Any) -> RecurrentPPO:
    return RecurrentPPO("CartPole-v1", **{**SMALL, **others})


def progresses(agent: RecurrentAgent) -> list[float]:
    """The list that grows by the progress of every update, which does nothing else."""
    seen: list[float] = []

    def update(rollout: Any, progress: float) -> dict[str, float]:
        seen.append(progress)
        return {}

    agent.update = update  # type: ignore[method-assign]
    return seen


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("section", [PPOConfig, A2CConfig])
@pytest.mark.parametrize("calls", [(160,), (40,) * 4, (100, 59, 1), (16,) * 10])
@pytest.mark.each_value
def test_several_calls_train_exactly_as_one(
    section: type[Any], calls: tuple[int, ...], tmp_path: Path
) -> None:
    config = TrainConfig(
        total_steps=160,
        run_dir=str(tmp_path / "run"),
        env=EnvConfig(num_envs=2),
        memory=MemoryConfig(width=8, num_heads=2),
        agent=section(
            **{"rollout_steps": 8, "log_interval": 1},  # the end of a call ends a row
            **({"minibatches": 1} if section is PPOConfig else {}),
        ),
    )

    def run(agent: RecurrentAgent) -> tuple[torch.Tensor, list[Any]]:
        with agent:
            for steps in calls:
                agent.learn(steps)
        weights = torch.cat([weight.detach().flatten() for weight in agent.parameters])
        # 40 steps are two and a half rollouts: what is left over counts in the next call.
        assert agent.steps_done == 160
        table = rows(agent.run_dir)  # type: ignore[arg-type]
        return weights, [{k: v for k, v in row.items() if k != "time/sps"} for row in table]

    weights, table = run(make_agent(config))
    calls = (160,)
    config = TrainConfig(**{**vars(config), "run_dir": str(tmp_path / "once")})
    expected_weights, expected_table = run(make_agent(config))
    assert torch.equal(weights, expected_weights)
    assert table == expected_table
    rates = [float(row["schedule/learning_rate"]) for row in table]
    full = config.agent.learning_rate
    end = config.agent.learning_rate_end
    np.testing.assert_allclose(rates, [full * (1 + (end - 1) * k / 10) for k in range(10)])


def test_progress_runs_over_the_default_total_where_none_was_given() -> None:
    agent = small()
    whole = agent.config.total_steps // ROLLOUT
    seen = progresses(agent)
    for _ in range(3):
        agent.learn(2 * ROLLOUT)
    assert seen == [k / whole for k in range(6)]


def test_the_only_call_may_run_over_its_own_steps() -> None:
    agent = small()
    seen = progresses(agent)
    agent.learn(4 * ROLLOUT + 5, horizon=4 * ROLLOUT + 5)
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_a_configured_total_is_what_progress_runs_over() -> None:
    agent = small(total_steps=8 * ROLLOUT + 3)
    assert agent.config.total_steps == 8 * ROLLOUT + 3
    seen = progresses(agent)
    for _ in range(3):
        agent.learn(2 * ROLLOUT)
    assert seen == [k / 8 for k in range(6)]


def test_a_call_beyond_the_configured_total_goes_on_annealing() -> None:
    agent = small(total_steps=2 * ROLLOUT)
    seen = progresses(agent)
    agent.learn().learn(2 * ROLLOUT)
    assert seen == [0.0, 0.5, 0.5, 0.75]


def test_a_horizon_beats_the_configured_total() -> None:
    agent = small(total_steps=2 * ROLLOUT)
    seen = progresses(agent)
    agent.learn(2 * ROLLOUT, horizon=8 * ROLLOUT)
    agent.learn(2 * ROLLOUT, horizon=2 * ROLLOUT)  # over: schedules stay at their end
    assert seen == [0.0, 0.125, 1.0, 1.0]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "100", float("inf")])
def test_steps_that_are_no_count_are_refused_before_a_folder_is_made(
    wrong: Any, tmp_path: Path
) -> None:
    agent = small(run_dir=str(tmp_path / "run"))
    for arguments in ({"total_steps": wrong}, {"total_steps": 16, "horizon": wrong}):
        name = list(arguments)[-1]
        with pytest.raises(ConfigError, match=rf"^{name}={wrong!r}: expected an integer >= 1$"):
            agent.learn(**arguments)
    assert not (tmp_path / "run").exists()


def test_steps_are_taken_as_any_kind_of_number() -> None:
    agent = small(total_steps=32)
    seen = progresses(agent)
    agent.learn(np.int64(32)).learn(3.2e1, horizon=torch.tensor(128))
    assert agent.steps_done == 64 and type(agent.steps_done) is int
    assert seen == [0.0, 0.5, 0.25, 0.375]


def test_less_than_a_rollout_is_a_rollout_and_is_not_owed() -> None:
    agent = small()
    assert agent.learn(1).steps_done == ROLLOUT
    assert agent.learn(1).steps_done == 2 * ROLLOUT
    assert agent.learn(2 * ROLLOUT).steps_done == 4 * ROLLOUT


@pytest.mark.parametrize("kind", ["csv", "tensorboard"])
def test_all_calls_until_close_share_one_logger(kind: str, tmp_path: Path) -> None:
    agent = small(run_dir=str(tmp_path / "run"), logger={"kind": kind})
    for _ in range(3):
        agent.learn(ROLLOUT)
    files = list((tmp_path / "run").glob("tensorboard/*"))
    assert len(files) == (kind == "tensorboard")
    agent.close()
    agent.close()
    agent.learn(ROLLOUT).close()
    assert [row["step"] for row in rows(tmp_path / "run")] == ["16", "32", "48", "64"]
    assert len(list((tmp_path / "run").glob("tensorboard/*"))) == 2 * (kind == "tensorboard")


def test_what_is_logged_is_in_the_event_file_before_close(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    agent = small(run_dir=str(tmp_path / "run"), logger={"kind": "tensorboard"})
    agent.learn(2 * ROLLOUT)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [one.step for one in events.Scalars("schedule/learning_rate")] == [16, 32]
    agent.close()


def test_a_with_statement_closes_logger_and_environments(tmp_path: Path) -> None:
    env = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2)
    with RecurrentPPO(env, **{**SMALL, "env": {}}, run_dir=str(tmp_path / "run")) as agent:
        agent.learn(ROLLOUT)
        assert not agent.env.closed
    assert agent.env.closed
    assert agent._run._logger is None


def test_an_agent_that_is_dropped_closes_its_logger(tmp_path: Path) -> None:
    agent = small(run_dir=str(tmp_path / "run"), logger={"kind": "csv"}).learn(ROLLOUT)
    logger = agent._run._logger
    assert logger is not None
    closed: list[bool] = []
    (sink,) = logger._sinks
    close = sink.close
    sink.close = lambda: (close(), closed.append(True))[0]  # type: ignore[func-returns-value,method-assign]
    del agent
    gc.collect()  # an unclosed file would be a ResourceWarning, which is an error here
    assert closed == [True]


@pytest.mark.parametrize("stop", [False, np.bool_(False)])
def test_a_callback_that_answers_false_stops_after_saving(stop: Any, tmp_path: Path) -> None:
    agent = small(run_dir=str(tmp_path / "run"))
    seen: list[int] = []

    def on_update(step: int, metrics: dict[str, float]) -> bool | None:
        seen.append(step)
        return stop if len(seen) == 2 else None

    agent.learn(10 * ROLLOUT, on_update)
    assert seen == [16, 32] and agent.steps_done == 32
    assert (tmp_path / "run" / "latest").read_text() == "32\n"
    # The steps that were not trained are not owed: the next call trains its own.
    assert agent.learn(ROLLOUT, on_update).steps_done == 48


@pytest.mark.parametrize("answer", [None, True, 0, 1, "", []])
def test_no_other_answer_of_a_callback_stops(answer: Any) -> None:
    assert small().learn(3 * ROLLOUT, lambda *_: answer).steps_done == 3 * ROLLOUT


def test_a2c_takes_the_same_arguments() -> None:
    agent = RecurrentA2C(
        "CartPole-v1", total_steps=64, env={"num_envs": 2}, logger=LoggerConfig(kind="none")
    )
    assert agent.config.total_steps == 64
