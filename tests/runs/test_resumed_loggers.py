"""Where metrics go when a run goes on: no step is missing, and none counts twice."""

import json
from pathlib import Path
from typing import Any

import pytest
import wandb

from xlstm_rl import RecurrentPPO
from xlstm_rl.cli import main
from xlstm_rl.runs.loggers.tables import drop_rows_after, last_step
from xlstm_rl.versions import installed_version

pytestmark = pytest.mark.usefixtures("no_wandb_account")


class _StoppedError(Exception):
    """A run that dies."""


def train_and_go_on(run: Path, kind: str) -> None:
    """Log five rollouts, of which the checkpoint covers three, and go on for two."""
    agent = RecurrentPPO(
        "CartPole-v1",
        run_dir=str(run),
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "epochs": 1, "minibatches": 1},
        logger={"kind": kind},
    )
    with agent:
        agent.learn(48)
        for step in (64, 80):  # a process that was killed behind them
            agent._run.log(step, {"loss/value": -1.0, "episode/return": 0.0})
    with RecurrentPPO.load(run) as loaded:
        loaded.learn(32)


def test_tensorboard_leaves_out_what_the_checkpoint_does_not_cover(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_and_go_on(tmp_path / "run", "tensorboard")
    folder = tmp_path / "run" / "tensorboard"
    assert len(list(folder.iterdir())) == 2
    found = EventAccumulator(str(folder)).Reload().Scalars("loss/value")
    assert [one.step for one in found] == [16, 32, 48, 64, 80]
    assert all(one.value >= 0 for one in found)


def test_a_wandb_run_goes_on_under_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    logged: list[tuple[str, int]] = []
    init = wandb.init

    def recorded(**options: Any) -> Any:
        asked.append(options)
        run = init(**options)
        log = run.log

        def noted(values: dict[str, Any], commit: bool = True) -> None:
            if commit:
                logged.append((run.id, values["step"]))
            log(values, commit=commit)

        run.log = noted
        return run

    monkeypatch.setattr(wandb, "init", recorded)
    train_and_go_on(tmp_path / "run", "wandb")
    first, second = asked
    assert first["id"] == second["id"]
    # before 0.31 W&B ignores it offline, and prints a line about it
    has_resume = installed_version("wandb") >= (0, 31)
    assert second.get("resume") == ("allow" if has_resume else None)
    # what the checkpoint did not cover is cut from the first file, and logged anew
    assert [step for _, step in logged] == [16, 32, 48, 64, 80, 64, 80]
    assert {run_id for run_id, _ in logged} == {first["id"]}
    names = [path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*")]
    assert names and all(f"-{first['id']}" in name for name in names)


def _binary(path: Path) -> None:
    path.write_bytes(b"\xda\xff\x00,\n\x80")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [_binary, _folder])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_damaged_log_is_refused_and_nothing_is_overwritten(
    kind: str, damage: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train_and_go_on(run, kind)
    damage(run / f"metrics.{kind}")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["resume", str(run), "--total-steps", "160"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"logger {kind} wrote before step 80 is damaged" in error
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_line_whose_step_is_no_number_is_dropped(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_and_go_on(run, "jsonl")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": "x"}\n')
    with RecurrentPPO.load(run) as agent:
        agent.learn(16)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines][-2:] == [80, 96]


@pytest.mark.parametrize("found", ["../../elsewhere", "a b", "", "x" * 99])
def test_an_id_that_is_none_is_made_anew(found: str, tmp_path: Path) -> None:
    from xlstm_rl.runs.loggers.wandb_logger import ID_FILE

    path = tmp_path / "run" / ID_FILE
    train_and_go_on(tmp_path / "run", "csv")
    path.parent.mkdir(parents=True)
    path.write_text(found)
    with RecurrentPPO.load(tmp_path / "run", logger={"kind": "wandb"}) as agent:
        agent.learn(16)
        assert wandb.run is not None
        assert wandb.run.id == path.read_text().strip() != found


def test_rows_are_dropped_by_their_step(tmp_path: Path) -> None:
    table = tmp_path / "metrics.csv"
    table.write_text("step,a\n16,1\n32,2\n48,3\n64,")
    assert last_step(tmp_path) == 64
    drop_rows_after(table, 32)
    assert table.read_text() == "step,a\n16,1\n32,2\n"
    assert last_step(tmp_path) == 32
    before = table.stat().st_mtime_ns
    drop_rows_after(table, 32)
    assert table.stat().st_mtime_ns == before
    table.write_text("step,a\n16,1\n3")  # killed within a row
    drop_rows_after(table, 32)
    assert table.read_text() == "step,a\n16,1\n"
    drop_rows_after(tmp_path / "none.csv", 3)
    (tmp_path / "other.csv").write_text("x\n1\n")
    drop_rows_after(tmp_path / "other.csv", 0)
    assert (tmp_path / "other.csv").read_text() == "x\n1\n"
