"""What a W&B run holds, read back from offline ones: figures, artifacts, and what a resume does."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb

from xlstm_rl import RecurrentPPO
from xlstm_rl.cli import main
from xlstm_rl.runs.loggers import (
    Logger,
    LoggerConfig,
    budget,
    make_logger,
)
from xlstm_rl.runs.loggers.wandb_file import cut_after, records
from xlstm_rl.runs.loggers.wandb_logger import ID_FILE, WandbSink

TINY: dict[str, Any] = {
    "env": {"num_envs": 2},
    "memory": {"width": 8, "num_heads": 2},
    "policy": {"critic": "separate"},
    "agent": {"rollout_steps": 8, "epochs": 1, "minibatches": 1},
}
GATES = ("critic_memory/forget_gates/0", "memory/forget_gates/0")


pytestmark = pytest.mark.usefixtures("no_wandb_account")


@pytest.fixture(autouse=True, scope="module")
def own_settings() -> None:
    """Other tests may have had W&B read variables of theirs, which it does once."""
    wandb.teardown()


@pytest.fixture
def read_anew(no_wandb_account: None) -> Iterator[None]:
    """Have W&B read its variables and settings again, which it does once."""
    wandb.teardown()
    yield
    wandb.teardown()


def files(folder: Path, cut: int = 0) -> list[Path]:
    """The offline files of a run folder, oldest first, when W&B's process has written them.

    The first `cut` of them have lost their ends.
    """
    found = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    deadline = time.monotonic() + 30
    for path in found[cut:]:
        while time.monotonic() < deadline:
            kinds = [record.WhichOneof("record_type") for _, record in records(path)]
            if "exit" in kinds:
                break
            time.sleep(0.05)
    return found


def points(path: Path) -> list[dict[str, Any]]:
    """Each logged point: plain values, and the type of what is not."""
    found = []
    for _, record in records(path):
        if record.WhichOneof("record_type") != "history":
            continue
        values: dict[str, Any] = {}
        for item in record.history.item:
            key = [item.key] if item.key else list(item.nested_key)
            if not key[0].startswith("_") and (len(key) == 1 or key[-1] == "_type"):
                values[key[0]] = json.loads(item.value_json)
        found.append(values)
    return found


def of_kind(path: Path, kind: str) -> list[Any]:
    return [getattr(one, kind) for _, one in records(path) if one.WhichOneof("record_type") == kind]


def logger(folder: Path, **options: Any) -> Logger:
    return make_logger(LoggerConfig("wandb", **options), folder, {"seed": 3})


def test_a_training_logs_losses_speed_actions_and_its_checkpoints(folder: Path) -> None:
    agent = RecurrentPPO("CartPole-v1", run_dir=str(folder), logger={"kind": "wandb"}, **TINY)
    agent.learn(64)
    agent.close()
    (path,) = files(folder)
    found = points(path)
    assert [point["step"] for point in found] == [16, 32, 48, 64]
    for name in ("policy", "value", "entropy", "approx_kl", "clip_fraction", "grad_norm"):
        assert all(np.isfinite(point[f"loss/{name}"]) for point in found)
    assert {"loss/explained_variance", "time/sps", "episode/return"} <= found[-1].keys()
    assert {found[0][name] for name in ("actions", *GATES)} == {"histogram"}
    (artifact,) = of_kind(path, "artifact")
    assert artifact.type == "model" and {"latest", "step-64"} <= set(artifact.aliases)
    assert {entry.path for entry in artifact.manifest.contents} == {
        *("policy.safetensors", "policy.yaml", "trainer.pt"),
    }
    assert json.loads(artifact.metadata)["step"] == 64
    # copies that wait for the upload lie in the run folder too
    assert list(folder.glob("wandb/artifacts/staging/*"))
    assert not list((folder.parent / "home").rglob("staging"))


def test_the_names_are_the_same_in_every_logger(folder: Path) -> None:
    kind = "csv,jsonl,tensorboard,wandb"
    agent = RecurrentPPO("CartPole-v1", run_dir=str(folder), logger={"kind": kind}, **TINY)
    agent.learn(32)
    agent.close()
    header = set((folder / "metrics.csv").read_text().splitlines()[0].split(","))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [16, 32]
    assert set(lines[0]) == header

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = EventAccumulator(str(folder / "tensorboard")).Reload().Tags()
    assert set(tags["scalars"]) == header - {"step"}
    assert sorted(tags["histograms"]) == ["actions", *GATES]
    (path,) = files(folder)
    assert set(points(path)[0]) - {"actions", *GATES} == header


def test_the_best_checkpoint_so_far_has_the_alias_best(folder: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    with logger(folder) as ours:
        for step, score in ((1, 1.0), (2, 5.0), (3, 4.0), (4, float("nan"))):
            (checkpoint / "policy.yaml").write_text(str(step))
            ours.log(step, {"episode/return": score})
            ours.checkpoint(step, checkpoint)
    with logger(folder) as ours:  # a resumed run knows what was best
        ours.log(5, {"episode/return": 4.5})
        ours.checkpoint(5, checkpoint)
        ours.log(6, {"episode/return": 6.0})
        ours.checkpoint(6, checkpoint)
        ours.checkpoint(6, checkpoint, aliases=("best",))
        ours.log(7, {"episode/return": 60.0})
        ours.checkpoint(7, checkpoint)  # somebody else says what is best
    found = [one for path in files(folder) for one in of_kind(path, "artifact")]
    best = ["best" in one.aliases for one in found]
    assert best == [True, True, False, False, False, True, True, False]
    assert len({one.name for one in found}) == 1


def test_without_checkpoints_there_is_no_artifact(folder: Path) -> None:
    agent = RecurrentPPO(
        "CartPole-v1", run_dir=str(folder), logger={"kind": "wandb", "checkpoints": False}, **TINY
    )
    agent.learn(16)
    agent.close()
    (path,) = files(folder)
    assert of_kind(path, "artifact") == []


def test_a_run_opened_again_is_the_same_and_forgets_what_followed_the_checkpoint(
    folder: Path,
) -> None:
    config = LoggerConfig("csv,jsonl,tensorboard,wandb")
    with make_logger(config, folder, {}) as first:
        for step in range(1, 6):
            first.log(step, {"x": float(step)})
    files(folder)
    with make_logger(config, folder, {}, resumed_at=3) as second:
        for step in (4, 5, 6):
            second.log(step, {"x": 10.0 * step})
    expected = {1: 1.0, 2: 2.0, 3: 3.0, 4: 40.0, 5: 50.0, 6: 60.0}
    offline = files(folder, cut=1)
    assert len(offline) == 2
    ids = {of_kind(path, "run")[0].run_id for path in offline}
    assert ids == {(folder / ID_FILE).read_text().strip()}
    rows = [point for path in offline for point in points(path)]
    assert [(row["step"], row["x"]) for row in rows] == list(expected.items())
    table = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()[1:]]
    assert {int(row[0]): float(row[-1]) for row in table} == expected and len(table) == 6
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"]: line["x"] for line in lines} == expected and len(lines) == 6

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload().Scalars("x")
    assert [(one.step, one.value) for one in events] == list(expected.items())


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_line_that_a_killed_run_left_incomplete_is_dropped(kind: str, folder: Path) -> None:
    config = LoggerConfig(kind)
    with make_logger(config, folder, {}) as ours:
        ours.log(1, {"x": 1.0})
    path = folder / f"metrics.{kind}"
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[-1][:4])
    make_logger(config, folder, {}, resumed_at=5).close()
    assert path.read_text() == whole


def test_a_cut_file_of_many_blocks_keeps_every_point_up_to_the_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "CREDIT", 1e9)  # every point, on a busy machine too
    with logger(folder) as ours:
        for step in range(400):
            ours.log(step, {f"a rather long name of a metric {n}": float(step) for n in range(8)})
    (path,) = files(folder)
    assert path.stat().st_size > 4 * 32768
    whole = points(path)
    for step in (399, 250, 101, 100, 0, -1):
        cut_after(path, step)
        assert points(path) == whole[: step + 1]
        truncated = path.read_bytes()
        path.write_bytes(truncated[:-3])  # as a killed process leaves it
        assert points(path) in (whole[: step + 1], whole[:step])
        path.write_bytes(truncated)


def test_group_tags_notes_and_names_reach_the_run(folder: Path) -> None:
    options = {"project": "p", "group": "g", "tags": ("a", "b"), "notes": "n", "name": "me"}
    with logger(folder, **options) as ours:
        ours.log(1, {"x": 1.0})
    (path,) = files(folder)
    (run,) = of_kind(path, "run")[:1]
    assert (run.project, run.run_group, run.notes, run.display_name) == ("p", "g", "n", "me")
    assert list(run.tags) == ["a", "b"]


@pytest.mark.usefixtures("read_anew")
def test_the_variables_of_wandb_are_respected_and_options_beat_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    variables = {
        "PROJECT": "vp",
        "RUN_GROUP": "vg",
        "TAGS": "x,y",
        "NOTES": "vn",
        "NAME": "vname",
        "MODE": "offline",
        "DIR": str(tmp_path / "elsewhere"),
    }
    (tmp_path / "elsewhere").mkdir()
    for name, value in variables.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    with logger(folder, group="mine") as ours:
        ours.log(1, {"x": 1.0})
    (path,) = files(tmp_path / "elsewhere")
    (run,) = of_kind(path, "run")[:1]
    assert (run.project, run.notes, run.display_name) == ("vp", "vn", "vname")
    assert (run.run_group, list(run.tags)) == ("mine", ["x", "y"])
    (line,) = capsys.readouterr().err.splitlines()
    assert f"wandb sync {tmp_path}/elsewhere/wandb/offline-run-*-{run.run_id}*`" in line
    WandbSink.forget_after(folder, 0)
    assert points(path) == []


@pytest.mark.usefixtures("read_anew")
def test_a_disabled_run_says_and_keeps_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with logger(folder) as ours:
        ours.log(1, {"x": 1.0})
    assert os.listdir(folder) == ["metrics.csv"]
    assert capsys.readouterr().err == ""


def test_an_evaluation_and_its_videos_join_the_run_of_the_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = RecurrentPPO("CartPole-v1", run_dir=str(folder), logger={"kind": "wandb"}, **TINY)
    agent.learn(16)
    agent.close()

    def film(policy: Any, *args: Any, video_dir: Any = None, **options: Any) -> Any:
        if video_dir is not None:
            Path(video_dir).mkdir(parents=True)
            (Path(video_dir) / "rl-video-episode-0.mp4").write_bytes(b"a film")
        return evaluate(policy, *args, **options)

    import xlstm_rl

    evaluate = xlstm_rl.evaluate
    monkeypatch.setattr(xlstm_rl, "evaluate", film, raising=False)
    words = ["--episodes", "3", "--wandb", "--both", "--video", str(folder / "videos")]
    assert main(["eval", str(folder), *words]) == 0
    training, *evaluations = files(folder)
    ids = {of_kind(path, "run")[0].run_id for path in (training, *evaluations)}
    assert len(ids) == 1 and len(evaluations) == 2
    kept = json.loads((folder / "eval.json").read_text())
    heads = ("evaluation", "evaluation_sampled")
    for path, report, head in zip(evaluations, kept, heads, strict=True):
        video, point = points(path)
        assert video == {"step": 16, f"{head}/rl-video-episode-0": "video-file"}
        assert (point["step"], point[f"{head}/return"]) == (16, pytest.approx(report["mean"]))
        assert point[f"{head}/return_low"] == pytest.approx(report["interval"][0])
    assert capsys.readouterr().err.count("wandb sync") == 3
