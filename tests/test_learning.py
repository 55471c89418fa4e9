"""The shipped configurations reach what they promise; each takes minutes."""

from pathlib import Path

import pytest

from xlstm_rl import evaluate, load_policy
from xlstm_rl.cli import main
from xlstm_rl.evaluation import EvaluationResult

pytestmark = pytest.mark.slow


def _train_and_evaluate(run: Path, *args: str) -> EvaluationResult:
    assert main(["train", "--run-dir", str(run), "--device", "cpu", *args]) == 0
    return evaluate(load_policy(run), episodes=20, seed=0)


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_the_default_balances_a_pole_without_velocities(tmp_path: Path, seed: str) -> None:
    result = _train_and_evaluate(tmp_path / "run", "--seed", seed)
    assert len(result.returns) == 20 and result.mean >= 475


def test_without_memory_the_same_configuration_does_not(tmp_path: Path) -> None:
    assert _train_and_evaluate(tmp_path / "run", "--memory.kind", "mlp").mean < 150


@pytest.mark.parametrize(
    "name",
    ["tmaze", "parity", "repeat_previous", "associative_recall", "navigate_and_return"],
)
def test_the_memory_tasks_are_learned_within_their_budgets(tmp_path: Path, name: str) -> None:
    assert _train_and_evaluate(tmp_path / "run", "--config", name).mean >= 0.9


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_a_pendulum_is_swung_up_without_its_velocity(tmp_path: Path, seed: str) -> None:
    result = _train_and_evaluate(tmp_path / "run", "--config", "pendulum_novel", "--seed", seed)
    assert result.mean >= -200


@pytest.mark.parametrize("seed", ["0", "1"])
def test_a_cheetah_runs_without_its_velocities(tmp_path: Path, seed: str) -> None:
    pytest.importorskip("mujoco")
    words = ("--config", "halfcheetah_novel", "--total-steps", "100000", "--seed", seed)
    assert _train_and_evaluate(tmp_path / "run", *words).mean >= 500


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_memory_chain_recalls_over_32_steps(tmp_path: Path, seed: str) -> None:
    result = _train_and_evaluate(tmp_path / "run", "--config", "memory_chain", "--seed", seed)
    assert result.mean >= 0.95


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_a2c_balances_a_pole_without_velocities(tmp_path: Path, seed: str) -> None:
    result = _train_and_evaluate(tmp_path / "run", "--config", "cartpole_novel_a2c", "--seed", seed)
    assert result.mean >= 475
