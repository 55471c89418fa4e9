"""`xlstm-rl resume`, as it is used."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from xlstm_rl import load_policy
from xlstm_rl.cli import main
from xlstm_rl.config import load_yaml

TINY = (
    *("--env.num-envs", "2", "--agent.rollout-steps", "8", "--agent.minibatches", "1"),
    *("--memory.width", "8", "--memory.num-heads", "2", "--device", "cpu", "--seed", "3"),
)


def steps(run: Path) -> list[int]:
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    assert main(["train", "--run-dir", str(run), "--total-steps", "48", *TINY]) == 0
    return run


def test_a_finished_run_trains_on_with_more_steps_and_another_option(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--total-steps", "96", "--agent.learning-rate", "0.5", "--checkpoint.keep", "1")
    capsys.readouterr()
    assert main(["resume", str(run), *more]) == 0
    assert f"saved in {run}; next: xlstm-rl eval" in capsys.readouterr().out
    assert steps(run) == [16, 32, 48, 64, 80, 96]
    found = load_yaml(run / "config.yaml")
    assert found["total_steps"] == 96 and found["agent"]["learning_rate"] == 0.5
    assert found["run_dir"] == str(run) and found["memory"]["width"] == 8
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["96"]
    load_policy(run)


def test_a_folder_of_its_own_leaves_the_run_alone(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    copy = tmp_path / "copy"
    checkpoint = str(run / "checkpoints" / "48")
    words = ("--total-steps", "80", "--run-dir", str(copy), "--logger.kind", "csv")
    assert main(["resume", checkpoint, *words]) == 0
    assert steps(copy) == [64, 80]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "finished: 48 steps of 48 are done, in rollouts of 16; a larger total_steps"),
        (("--total-steps", "40"), "finished: 48 steps of 40 are done"),
        (("--total-steps", "0"), "an integer >= 1"),
        (("--seed", "4"), "the random streams of a run go on from its own seed, 3"),
        (("--memory.width", "16", "--total-steps", "96"), "memory.width=16"),
        (("--policy.head-width", "16", "--total-steps", "96"), "policy.head_width=16"),
        (
            ("--memory.kind", "gru", "--total-steps", "96"),
            "memory.kind='gru': the policy was trained",
        ),
        (("--agent.algo", "a2c", "--total-steps", "96"), "agent.algo=a2c: the run is trained by"),
        (("--agent.algo", "a2c", "--agent.epochs", "2"), "agent.algo=a2c: the run is trained by"),
        (("--logger.kind", "none", "--logger.tags", "a"), "logger.tags: an option of logger.kind="),
        (("--evaluation.episodes", "3"), "evaluation.episodes=3: an option of"),
        (("--env.id", "Acrobot-v1", "--total-steps", "96"), "observation_space is not the one"),
        (("--agent.learnin-rate", "1"), "did you mean --agent.learning-rate?"),
        (("--run-dir", "RUN", "--total-steps", "96"), "not empty"),
        (("extra",), "unexpected argument 'extra'"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(
    words: tuple[str, ...],
    said: str,
    run: Path,
    refused: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert said in refused("resume", str(run), *(str(run) if w == "RUN" else w for w in words))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("wandb_disabled")
def test_other_loggers_and_less_evaluation_drop_what_belonged_to_those_before(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    words = ("--logger.kind", "wandb", "--logger.project", "p", "--evaluation.every-steps", "16")
    words += ("--evaluation.episodes", "2", "--total-steps", "16")
    assert main(["train", "--run-dir", str(run), *words, *TINY]) == 0
    words = ("--logger.kind", "csv", "--evaluation.every-steps", "0", "--total-steps", "32")
    assert main(["resume", str(run), *words]) == 0
    found = load_yaml(run / "config.yaml")
    assert found["logger"] == {"kind": "csv"}
    assert found["evaluation"] == {"every_steps": 0, "episodes": 20, "deterministic": True}
    assert steps(run) == [16, 32]


def test_a_run_that_was_made_in_python_is_refused_with_what_it_needs(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    import gymnasium

    from xlstm_rl import RecurrentPPO

    def make() -> gymnasium.Env[object, object]:
        return gymnasium.make("CartPole-v1")

    agent = RecurrentPPO(
        make,
        run_dir=str(tmp_path / "run"),
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
    )
    with agent:
        agent.learn(16)
    said = refused("resume", str(tmp_path / "run"), "--total-steps", "64")
    assert "trained on custom(" in said and "load(run, environment)" in said
