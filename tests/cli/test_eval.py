import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import xlstm_rl
from xlstm_rl import RecurrentPPO
from xlstm_rl.cli import eval as eval_command
from xlstm_rl.cli import main
from xlstm_rl.errors import EnvError


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
        *("returns", "lengths", "checkpoint", "success_rate", "max_episode_steps", "interval"),
    }
    assert report["env"] == "CartPole-v1"
    assert (report["episodes"], report["seed"], report["deterministic"]) == (3, 5, True)
    # CartPole pays 1 for every step.
    assert report["returns"] == [float(length) for length in report["lengths"]]
    assert report["mean"] == pytest.approx(sum(report["returns"]) / 3)
    low, high = report["interval"]
    assert min(report["returns"]) <= low <= report["mean"] <= high <= max(report["returns"])
    assert report["checkpoint"].startswith(str(run))


def test_the_plain_result_is_one_readable_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run), "--episodes", "2", "--stochastic"]) == 0
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    assert "CartPole-v1: return " in output
    assert " over 2 episodes with sampled actions" in output
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


@pytest.fixture
def other(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "other"))


def test_several_runs_are_one_table_and_each_keeps_its_own_result(
    run: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run), str(other), "--episodes", "3"]) == 0
    caption, head, *lines = capsys.readouterr().out.splitlines()
    assert caption == "CartPole-v1: 3 episodes each, seed 0"
    assert head.split("  ")[0] == "run" and "95 % interval" in head and "success" in head
    assert [line.split("  ")[0] for line in lines] == [str(run), str(other)]
    assert all("  most probable  " in line for line in lines)
    assert len({len(line) for line in (head, *lines)}) == 1
    for folder, line in zip((run, other), lines, strict=True):
        report = json.loads((folder / "eval.json").read_text())
        assert f"{report['mean']:.2f}" in line
        assert f"[{report['interval'][0]:.2f}, {report['interval'][1]:.2f}]" in line


def test_both_ways_to_act_stand_one_under_the_other(
    run: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run), "--episodes", "2", "--both"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert ["most probable" in line for line in lines] == [True, False]
    assert ["sampled" in line for line in lines] == [False, True]
    kept = json.loads((run / "eval.json").read_text())
    assert [report["deterministic"] for report in kept] == [True, False]
    assert main(["eval", str(run), str(other), "--episodes", "2", "--both", "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [report["deterministic"] for report in reports] == [True, False, True, False]
    assert [Path(report["checkpoint"]).parents[1].name for report in reports] == [
        *("run", "run", "other", "other")
    ]
    alone = main(["eval", str(run), "--episodes", "2", "--stochastic", "--json"])
    assert (alone, json.loads(capsys.readouterr().out)) == (0, kept[1])


def test_one_episode_has_no_interval(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), "--episodes", "1"]) == 0
    assert "interval" not in capsys.readouterr().out
    assert json.loads((run / "eval.json").read_text())["interval"] is None


def test_a_mistake_in_the_last_run_is_found_before_the_first_is_played(
    refused: Callable[..., str], run: Path, tmp_path: Path
) -> None:
    (run / "eval.json").unlink(missing_ok=True)
    assert "no such folder" in refused("eval", str(run), str(tmp_path / "missing"))
    assert not (run / "eval.json").exists()
    assert "give one of the two" in refused("eval", str(run), "--both", "--stochastic")


@pytest.mark.parametrize("mistake", ["code", "spaces", "damaged"])
def test_so_is_one_that_shows_when_the_last_run_is_loaded_or_its_environment_made(
    mistake: str, refused: Callable[..., str], run: Path, other: Path
) -> None:
    (run / "eval.json").unlink(missing_ok=True)
    description = next(other.glob("checkpoints/*/policy.yaml"))
    if mistake == "damaged":
        description.with_name("policy.safetensors").write_bytes(b"")
    else:
        env_id = {"code": "somewhere:Else-v0", "spaces": "Pendulum-v1"}[mistake]
        text = description.read_text()
        assert text.count("id: CartPole-v1") == 1
        description.write_text(text.replace("id: CartPole-v1", f"id: {env_id}"))
    said = {"code": "--trust-code", "spaces": "does not fit", "damaged": "policy.safetensors"}
    assert said[mistake] in refused("eval", str(run), str(other), "--episodes", "1")
    assert not (run / "eval.json").exists()


@pytest.mark.parametrize("words", [[], ["--json"], ["--both"]])
def test_what_was_played_is_printed_though_a_later_run_fails(
    words: list[str],
    run: Path,
    other: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail_later(*args: Any, **options: Any) -> Any:
        played.append(1)
        if len(played) > 1 + ("--both" in words):
            raise EnvError("broken")
        return evaluate(*args, **options)

    (other / "eval.json").unlink(missing_ok=True)  # copied with the run
    played: list[int] = []
    evaluate = xlstm_rl.evaluate
    monkeypatch.setattr(xlstm_rl, "evaluate", fail_later)
    assert main(["eval", str(run), str(other), "--episodes", "2", *words]) == 1
    output = capsys.readouterr()
    assert output.err == "xlstm-rl eval: failed: EnvError: broken (--debug shows where)\n"
    if words == ["--json"]:
        assert [Path(one["checkpoint"]).parents[1] for one in json.loads(output.out)] == [run]
    else:
        _, _, *lines = output.out.splitlines()
        assert [line.split("  ")[0] for line in lines] == [str(run)] * (1 + len(words))
    assert (run / "eval.json").exists()
    assert not (other / "eval.json").exists()


def test_a_folder_that_cannot_be_written_costs_no_result(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(eval_command, "replacing", full)
    assert main(["eval", str(run), "--episodes", "2"]) == 2
    output = capsys.readouterr()
    assert "CartPole-v1: return " in output.out
    assert output.err == (
        f"xlstm-rl eval: cannot be written: {run / 'eval.json'}: No space left on device\n"
    )


def test_videos_of_several_runs_and_ways_to_act_have_folders_of_their_own(
    run: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorder(gymnasium.Wrapper[Any, Any, Any, Any]):
        def __init__(self, env: Any, folder: str, episode_trigger: Any) -> None:
            super().__init__(env)
            folders.append(Path(folder).relative_to(tmp_path))

    folders: list[Path] = []
    monkeypatch.setattr(gymnasium.wrappers, "RecordVideo", Recorder)
    words = ["--episodes", "1", "--video", str(tmp_path / "v")]
    assert main(["eval", str(run), *words]) == 0
    assert folders == [Path("v")]
    assert main(["eval", str(run), str(other), *words, "--both"]) == 0
    assert [str(folder) for folder in folders[1:]] == [
        *("v/1-run/most_probable", "v/1-run/sampled"),
        *("v/2-other/most_probable", "v/2-other/sampled"),
    ]
