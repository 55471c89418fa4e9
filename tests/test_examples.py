"""The examples run, and the table of names of another library has what there is.

Those with TorchRL: `tests/torchrl/test_examples.py`; that act without this library:
`tests/export/test_example.py`.
"""

import inspect
import re
from pathlib import Path

import pytest

import xlstm_rl
from xlstm_rl.agents import A2CConfig, PPOConfig, TrainConfig
from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.config.settings import all_paths
from xlstm_rl.policy import Policy

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "from_stable_baselines3.py"
PAGE = ROOT / "docs" / "from_stable_baselines3.md"


EXAMPLES = ROOT / "examples"
ALONE = ("train_and_act", "own_environment", "callbacks_and_evaluation", "custom_memory")
ALONE += ("supervised_memory", "two_processes")
SHORTER = {r"total_steps=[\d_]+": "total_steps=2_000", r"\b50_000\b": "2_000"}
SHORTER |= {r"\b10_000\b": "1_000", r", 300$": ", 2"}
"""Budgets: two rollouts, two updates."""


@pytest.mark.parametrize("name", ALONE)
def test_an_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    path = EXAMPLES / f"{name}.py"
    text = path.read_text(encoding="utf-8")
    for pattern, short in SHORTER.items():
        text = re.sub(pattern, short, text, flags=re.M)
    exec(compile(text, str(path), "exec"), {"__name__": "__main__"})


def test_every_example_is_run_and_short() -> None:
    elsewhere = {"from_stable_baselines3", "act_from_onnx"}
    elsewhere |= {"torchrl_ppo", "torchrl_dqn", "torchrl_sac"}
    found = {path.stem: path for path in EXAMPLES.glob("*.py")}
    assert set(found) == {*ALONE, *elsewhere}
    for name, path in found.items():
        most = 120 if name in ("torchrl_dqn", "torchrl_sac") else 80
        assert len(path.read_text(encoding="utf-8").splitlines()) <= most, name


def test_the_environment_of_the_tutorial_is_that_of_the_example() -> None:
    page = (ROOT / "docs" / "learn" / "own_environment.md").read_text(encoding="utf-8")
    text = (EXAMPLES / "own_environment.py").read_text(encoding="utf-8")
    body = text[text.index("class Doors") : text.index("if __name__")].rstrip()
    assert body in page


def test_the_translated_script_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = SCRIPT.read_text(encoding="utf-8").replace("100_000", "3_000")
    text = text.replace("PeriodicEvaluation(10_000", "PeriodicEvaluation(1_000")
    text = text.replace("PeriodicCheckpoint(50_000", "PeriodicCheckpoint(1_000")
    exec(compile(text, str(SCRIPT), "exec"), {"__name__": "__main__"})
    run = tmp_path / "runs" / "sb3"
    assert (run / "best" / "policy.safetensors").is_file() and (run / "tensorboard").is_dir()
    assert len(list((run / "checkpoints").iterdir())) >= 2
    assert "one more episode" in capsys.readouterr().out


def test_every_option_of_ours_in_the_table_exists() -> None:
    known = set(all_paths(TrainConfig, with_flags=False))
    known |= {f"agent.{name}" for cls in (PPOConfig, A2CConfig) for name in vars(cls())}
    rows = re.findall(r"^\|[^|]+\|([^|]+)\|$", PAGE.read_text(encoding="utf-8"), re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+\.\w+(?:\.\w+)?)`", row)}
    options = {name for name in named if name.split(".")[0] in vars(TrainConfig())}
    assert len(options) > 15
    assert options - known == {"agent.steps_done"}  # what an agent has


def test_every_name_of_ours_in_the_table_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in re.findall(r"`agent\.(\w+)\(", text):
        assert hasattr(RecurrentAgent, name), name
    for name in re.findall(r"`policy\.(\w+)\(", text):
        assert hasattr(Policy, name), name
    for name in ("Callback", "PeriodicEvaluation", "PeriodicCheckpoint", "StopAtReturn"):
        assert name in text and inspect.isclass(getattr(xlstm_rl, name))
