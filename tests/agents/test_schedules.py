import csv
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents import PPOConfig, TrainConfig
from xlstm_rl.agents.schedules import make_schedule
from xlstm_rl.config import ConfigError, parse_config

SMALL: dict[str, Any] = {"env": {"num_envs": 2}, "memory": {"width": 8, "num_heads": 2}}


def points(word: str, end: float, warmup: float = 0.0) -> list[float]:
    schedule = make_schedule("agent.clip_schedule", word, end, warmup)
    return [schedule(p) for p in (0.0, 0.25, 0.5, 1.0, 1.5)]


def test_schedules_by_hand() -> None:
    assert points("linear", 0.0) == [1.0, 0.75, 0.5, 0.0, 0.0]
    assert points("linear", 0.5) == [1.0, 0.875, 0.75, 0.5, 0.5]
    assert points("constant", 0.0) == [1.0] * 5
    half = 0.5 * (1 + math.cos(math.pi / 4))
    assert points("cosine", 0.0) == pytest.approx([1.0, half, 0.5, 0.0, 0.0])
    assert points("cosine", 0.5) == pytest.approx([1.0, 0.5 + 0.5 * half, 0.75, 0.5, 0.5])
    # half of the training is warm-up; the line then runs over the other half
    assert points("linear", 0.0, 0.5) == pytest.approx([0.0, 0.5, 1.0, 0.0, 0.0])
    assert points("constant", 0.0, 0.25) == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert points("linear", 0.0, 1.0) == [0.0, 0.25, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
def test_every_scheduled_value_is_logged_and_used(algorithm: Any, tmp_path: Path) -> None:
    clip = {"clip": 0.4, "clip_schedule": "constant", "minibatches": 1, "epochs": 1}
    agent = algorithm(
        "CartPole-v1",
        **SMALL,
        total_steps=64,
        run_dir=str(tmp_path / "run"),
        agent={
            "rollout_steps": 8,
            "log_interval": 1,
            "learning_rate": 0.01,
            "learning_rate_schedule": "cosine",
            "entropy_coef": 0.2,
            "entropy_coef_end": 0.5,
            **(clip if algorithm is RecurrentPPO else {}),
        },
    )
    rates: list[float] = []
    step = agent.optimizer.step
    agent.optimizer.step = lambda: (rates.append(agent.optimizer.param_groups[0]["lr"]), step())
    agent.learn()
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [0.005 * (1 + math.cos(math.pi * p)) for p in (0.0, 0.25, 0.5, 0.75)]
    assert rates == pytest.approx(expected)
    assert [float(r["schedule/learning_rate"]) for r in rows] == pytest.approx(expected)
    entropy = [float(row["schedule/entropy_coef"]) for row in rows]
    assert entropy == pytest.approx([0.2, 0.175, 0.15, 0.125])
    if algorithm is RecurrentPPO:
        assert {row["schedule/clip"] for row in rows} == {"0.4"}


def test_the_entropy_bonus_counts_by_its_schedule() -> None:
    def weights(**agent: Any) -> list[float]:
        made = RecurrentA2C(
            *("CartPole-v1",),
            **SMALL,
            agent={"rollout_steps": 8, **agent},
            total_steps=64,
            logger={"kind": "none"},
        )
        made.learn()
        return [p.sum().item() for p in made.parameters]

    constant = weights(entropy_coef=0.1)
    assert weights(entropy_coef=0.1, entropy_coef_schedule="constant") == constant
    assert weights(entropy_coef=0.1, entropy_coef_end=0.0) != constant
    assert weights(entropy_coef=0.2, entropy_coef_schedule=lambda progress: 0.5) == constant


def test_functions_of_one_s_own_are_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    mine: Any = types.ModuleType("mine")
    mine.root = lambda progress: (1 - progress) ** 0.5
    monkeypatch.setitem(sys.modules, "mine", mine)
    for given in ("mine:root", lambda progress: (1 - progress) ** 0.5):
        agent = RecurrentA2C("CartPole-v1", **SMALL, agent={"learning_rate_schedule": given})
        assert agent.schedules.at(0.75)["learning_rate"] == pytest.approx(2e-3 * 0.5)
        assert isinstance(agent.config.agent.learning_rate_schedule, str)
    agent = RecurrentA2C(
        "CartPole-v1", **SMALL, agent={"learning_rate_schedule": lambda progress: "fast"}
    )
    with pytest.raises(ConfigError, match=r"schedule=<lambda.*> returned None at progress 0\.5"):
        agent.schedules.at(0.5)
    with pytest.raises(ConfigError, match=r"learning_rate_schedule: mine:no cannot be imported"):
        RecurrentA2C("CartPole-v1", **SMALL, agent={"learning_rate_schedule": "mine:no"})


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ({"clip_schedule": "cosin"}, r"clip_schedule='cosin': expected .*did you mean cosine\?"),
        ({"learning_rate_warmup": 1.5}, r"learning_rate_warmup=1\.5: expected a number from 0"),
        (
            {"learning_rate_schedule": "constant", "learning_rate_end": 0.5},
            r"learning_rate_end=0\.5: .*schedule is constant",
        ),
        ({"clip_schedule": "cosine", "clip_end": 1.0}, r"clip_schedule='cosine': .*clip_end is 1"),
        (
            {"entropy_coef": 0.1, "entropy_coef_end": 1.0, "entropy_coef_schedule": "cosine"},
            r"entropy_coef_schedule='cosine': .*entropy_coef_end is 1",
        ),
        (
            {"entropy_coef": 0.0, "entropy_coef_end": 0.5},
            r"entropy_coef_end=0\.5: .*entropy_coef is 0",
        ),
        ({"learning_rate_schedule": "mine:f", "learning_rate_end": 0.5}, r"learning_rate_end=0\.5"),
    ],
)
def test_schedules_that_cannot_be_or_have_no_effect_are_refused(
    agent: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PPOConfig(**agent)


def test_the_command_line_takes_them() -> None:
    words = "--agent.learning-rate-schedule cosine --agent.learning-rate-warmup 0.1"
    config = parse_config(TrainConfig, words.split())
    assert config.agent.learning_rate_schedule == "cosine"
    assert config.agent.learning_rate_warmup == 0.1
