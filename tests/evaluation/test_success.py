"""`info["is_success"]` of the last step, in the forms that environments use."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.cli import main
from xlstm_rl.evaluation import EvaluationResult


class Goal(gymnasium.Env[Any, Any]):
    """Three steps; says `told[episode]` at the last one, and success at the second."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, told: list[Any]) -> None:
        self.told = iter(told)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {"is_success": True}

    def step(self, action: Any) -> Any:
        self.t += 1
        info = {"is_success": True} if self.t == 2 else {}
        if self.t == 3:
            told = next(self.told)
            info = {} if isinstance(told, str) and told == "missing" else {"is_success": told}
        return np.zeros(2, np.float32), 1.0, self.t == 3, False, info


def _agent(told: list[Any]) -> RecurrentPPO:
    return RecurrentPPO(
        lambda: Goal(told),
        env={"num_envs": 1},
        memory={"kind": "gru", "width": 8},
        agent={"minibatches": 1},
        logger={"kind": "none"},
    )


def _evaluated(told: list[Any]) -> EvaluationResult:
    return evaluate(_agent(told).policy, Goal(told), episodes=len(told))


FORMS: dict[str, Callable[[bool], Any]] = {
    "bool": bool,
    "numpy bool": np.bool_,
    "int": int,
    "float": float,
    "float32": np.float32,
    "array of shape (1,)": lambda success: np.array([success]),
    "float array of shape (1,)": lambda success: np.array([float(success)]),
    "array without axes": lambda success: np.array(success),
    "tensor": torch.tensor,
    "list": lambda success: [success],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_truth_counts(form: str) -> None:
    result = _evaluated([FORMS[form](success) for success in (True, False, False, True, True)])
    assert result.successes == [1.0, 0.0, 0.0, 1.0, 1.0]
    assert result.success_rate == pytest.approx(0.6)


def test_shares_of_success_count_as_such() -> None:
    assert _evaluated([0.25, 1.0]).success_rate == pytest.approx(0.625)


def test_episodes_that_say_nothing_are_left_out() -> None:
    result = _evaluated([True, "missing", False, None, False])
    assert result.successes == [1.0, None, 0.0, None, 0.0]
    assert result.success_rate == pytest.approx(1 / 3)
    assert _evaluated(["missing", None]).success_rate is None


@pytest.mark.parametrize("odd", ["yes", 100.0, -1, np.nan, np.ones(2), {"goal": 1}, [[1], [1, 2]]])
def test_what_is_no_truth_is_left_out_with_a_warning(odd: Any) -> None:
    with pytest.warns(RuntimeWarning, match=r"info\['is_success'\] is .*expected a bool"):
        result = _evaluated([True, odd])
    assert result.successes == [1.0, None] and result.success_rate == 1.0


def test_the_command_line_shows_and_keeps_the_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = {
        "Goal-v0": lambda: Goal([True, False] * 99),
        "Silent-v0": lambda: Goal(["missing"] * 9),
    }
    for name, make in registered.items():
        monkeypatch.setitem(
            gymnasium.registry, name, gymnasium.envs.registration.EnvSpec(name, make)
        )
    run = str(_agent([]).save(tmp_path / "run"))
    args = ["eval", run, "--episodes", "2", "--env.id"]
    assert main([*args, "Goal-v0"]) == 0
    assert capsys.readouterr().out.endswith("length 3.0 on average, success rate 1.00\n")
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["success_rate"] == 1.0
    assert main([*args, "Silent-v0"]) == 0
    assert "success" not in capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert report["success_rate"] is None and report["max_episode_steps"] is None
    assert main([*args, "Silent-v0", "--max-episode-steps", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["lengths"] == [2, 2] and report["success_rate"] == 1.0
    assert report["max_episode_steps"] == 2
