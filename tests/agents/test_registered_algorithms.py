"""An algorithm of one's own: a class, and one line or its `module:Name`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest

from xlstm_rl import RecurrentA2C, load_policy
from xlstm_rl.agents import A2CConfig, TrainConfig, make_agent
from xlstm_rl.agents.automatic import ENTROPY_COEF
from xlstm_rl.agents.base_config import ALGORITHMS, register_algorithm
from xlstm_rl.cli import main
from xlstm_rl.config import parse_config

TINY: dict[str, Any] = {
    "env": {"num_envs": 2},
    "memory": {"kind": "mlp", "width": 8},
    "logger": {"kind": "none"},
}


@dataclass(frozen=True)
class ShoutConfig(A2CConfig):
    """A2C, with an option more."""

    algo: Literal["shout"] = "shout"  # type: ignore[assignment]
    loudness: int = 3
    """How loud."""


class Shout(RecurrentA2C):
    """A2C, and says so."""

    algo = "shout"
    algorithm: ShoutConfig

    def update(self, rollout: Any, progress: float) -> dict[str, float]:
        return {**super().update(rollout, progress), "loss/loudness": self.algorithm.loudness}


@pytest.fixture
def shout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ALGORITHMS, "classes", dict(ALGORITHMS.classes))
    monkeypatch.setattr(ALGORITHMS, "_targets", dict(ALGORITHMS._targets))
    register_algorithm(ShoutConfig, Shout)


@pytest.mark.usefixtures("shout")
def test_a_registered_algorithm_is_found_by_its_name(tmp_path: Path) -> None:
    config = parse_config(TrainConfig, ["--agent.algo", "shout", "--agent.loudness", "5"])
    agent = make_agent(config)
    assert isinstance(agent, Shout) and agent.algorithm.loudness == 5
    agent.close()
    seen: list[dict[str, float]] = []
    mine = Shout("CartPole-v1", **TINY, agent={"rollout_steps": 8, "loudness": 4})
    mine.learn(32, on_update=lambda step, metrics: seen.append(dict(metrics)))
    assert seen[0]["loss/loudness"] == 4
    mine.save(tmp_path / "run")
    again = Shout.load(tmp_path / "run")
    assert again.algorithm == ShoutConfig(
        rollout_steps=8, loudness=4, entropy_coef=0.01, gae_lambda=0.95
    )


@pytest.mark.usefixtures("shout")
def test_its_options_are_refused_elsewhere_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--agent.loudness", "5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "agent.loudness" in line and "an option of agent.algo=shout" in line
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--agent.algo", "shout", "--help", "agent"])
    assert "How loud." in capsys.readouterr().out


def test_an_algorithm_of_another_module_needs_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "loud_agents:Louder"

    @dataclass(frozen=True)
    class LouderConfig(A2CConfig):
        algo: str = name  # type: ignore[assignment]

    class Louder(RecurrentA2C):
        algo = name
        config_class = LouderConfig

    module: Any = ModuleType("loud_agents")
    module.Louder, Louder.__module__, Louder.__qualname__ = Louder, "loud_agents", "Louder"
    monkeypatch.setitem(sys.modules, "loud_agents", module)
    run = tmp_path / "run"
    words = ["--memory.kind", "mlp", "--env.num-envs", "2", "--run-dir", str(run)]
    assert main(["train", "--agent.algo", name, "--total-steps", "64", *words]) == 0
    load_policy(run)
    assert Louder("CartPole-v1", **TINY).algorithm == LouderConfig(
        rollout_steps=32, entropy_coef=ENTROPY_COEF
    )
    assert main(["train", "--agent.algo", "loud_agents:Quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "agent.algo" in line and "loud_agents" in line


def test_an_unknown_algorithm_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--agent.algo", "pppo"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected ppo, a2c or module:Name, got 'pppo'; did you mean ppo?" in line
