import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from xlstm_rl import RecurrentPPO
from xlstm_rl.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    agent = RecurrentPPO(
        "CartPole-v1",
        env={"num_envs": 4},
        memory={"width": 8, "num_heads": 2},
        logger={"kind": "none"},
    )
    path = agent.save(tmp_path_factory.mktemp("runs") / "run")
    agent.close()
    return path


def test_json_is_the_only_output_and_is_kept_in_the_run_folder(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run), "--json", "--episodes", "3", "--seed", "5"]) == 0
    text = capsys.readouterr().out
    report = json.loads(text)
    assert json.loads((run / "eval.json").read_text()) == report
    assert set(report) == {
        *("env", "episodes", "seed", "deterministic", "mean", "std", "min", "max"),
        *("returns", "lengths", "checkpoint", "success_rate", "max_episode_steps"),
    }
    assert report["env"] == "CartPole-v1"
    assert (report["episodes"], report["seed"], report["deterministic"]) == (3, 5, True)
    # CartPole pays 1 for every step.
    assert report["returns"] == [float(length) for length in report["lengths"]]
    assert report["mean"] == pytest.approx(sum(report["returns"]) / 3)
    assert report["checkpoint"].startswith(str(run))


def test_the_plain_result_is_one_readable_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run), "--episodes", "2", "--stochastic"]) == 0
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    assert "CartPole-v1: return " in output
    assert " over 2 episodes" in output
    assert json.loads((run / "eval.json").read_text())["deterministic"] is False


def test_one_checkpoint_writes_into_its_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "eval.json").unlink(missing_ok=True)
    (checkpoint,) = (run / "checkpoints").iterdir()
    before = sorted(os.listdir(checkpoint))
    assert main(["eval", str(checkpoint), "--episodes", "1"]) == 0
    assert (run / "eval.json").exists()
    assert sorted(os.listdir(checkpoint)) == before


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["--episodes", "0"], "episodes=0"),
        (["--env.id", "CartPol-v1"], "CartPole-v1"),
        (["--env.id", "Pendulum-v1"], "does not fit"),
    ],
)
def test_bad_options_are_one_line(
    refused: Callable[..., str], run: Path, args: list[str], part: str
) -> None:
    assert part in refused("eval", str(run), *args)


def test_foreign_and_damaged_folders_are_one_line_and_left_alone(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    assert "no such folder" in refused("eval", str(tmp_path / "missing"))
    (tmp_path / "notes.txt").write_text("x")
    assert "not a run folder" in refused("eval", str(tmp_path))
    assert os.listdir(tmp_path) == ["notes.txt"]
    (tmp_path / "policy.safetensors").write_text("no weights")
    assert str(tmp_path) in refused("eval", str(tmp_path))
    assert not (tmp_path / "eval.json").exists()
