"""What W&B's server is asked when a run goes on, by a stand-in, and what its failure costs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wandb

from xlstm_rl.runs.loggers import LoggerConfig, make_logger
from xlstm_rl.runs.loggers.wandb_logger import ID_FILE
from xlstm_rl.runs.loggers.wandb_note import note, read_note

pytestmark = pytest.mark.usefixtures("no_wandb_account")


class FakeRun:
    """A W&B run as far as it is used, online."""

    disabled = offline = False
    id, project, entity, step = "abc", "p", "e", 7

    def __init__(self, last: int | None = None) -> None:
        self.logged: list[dict[str, Any]] = []
        self.summary = {} if last is None else {"step": last}

    def define_metric(self, *_: Any, **__: Any) -> None: ...

    def log(self, data: dict[str, Any], commit: bool = True) -> None:
        self.logged.append(data)

    def finish(self) -> None: ...


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """A server that refuses or takes what it is asked; returns what it was asked."""
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    wandb.teardown()  # it reads its variables once
    asked: list[dict[str, Any]] = []

    def serve(run: FakeRun, refuses: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        def init(**options: Any) -> Any:
            asked.append(options)
            if refuses(options):
                raise RuntimeError("no")
            return run

        monkeypatch.setattr(wandb, "init", init)
        return asked

    yield serve
    monkeypatch.undo()
    wandb.teardown()


def keep_id(folder: Path) -> None:
    (folder / ID_FILE).parent.mkdir()
    (folder / ID_FILE).write_text("abc\n")


def test_online_a_run_is_rewound_to_the_point_of_its_checkpoint(
    folder: Path, online: Callable[..., list[dict[str, Any]]]
) -> None:
    keep_id(folder)
    note(folder, project="p", entity="e", points={"64": 3, "128": 7})
    asked = online(FakeRun(), lambda options: False)
    make_logger(LoggerConfig("wandb"), folder, {}, resumed_at=64).close()
    assert [one.get("resume_from") for one in asked] == ["abc?_step=3"]
    assert (asked[0]["project"], asked[0]["entity"]) == ("p", "e")
    assert "forget_after" not in read_note(folder)


def test_where_nothing_can_be_rewound_no_point_is_logged_twice(
    folder: Path, online: Callable[..., list[dict[str, Any]]]
) -> None:
    keep_id(folder)
    note(folder, project="p", points={"64": 3})
    run = FakeRun(last=96)
    asked = online(run, lambda options: "resume_from" in options)
    with make_logger(LoggerConfig("wandb"), folder, {}, resumed_at=64) as ours:
        for step in (80, 96, 112):
            ours.log(step, {"x": 1.0})
    assert [(one.get("id"), one.get("resume")) for one in asked] == [(None, None), ("abc", "allow")]
    assert [point["step"] for point in run.logged] == [112]


def test_a_logger_that_breaks_later_costs_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with make_logger(LoggerConfig("wandb"), folder, {}) as ours:
        capsys.readouterr()

        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("the service\nis gone")

        monkeypatch.setattr(wandb.run, "log", fail)
        monkeypatch.setattr(wandb.run, "log_artifact", fail)
        for step in (1, 2, 3):
            ours.log(step, {"x": 1.0})
            ours.histograms(step, {"h": np.arange(3.0)})
            ours.checkpoint(step, folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("wandb: the service is gone; the run goes on without W&B")
    assert (folder / "metrics.csv").read_text().count("\n") == 4


def test_where_wandb_does_not_start_at_all_training_goes_on(
    folder: Path,
    online: Callable[..., list[dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    online(FakeRun(), lambda options: True)
    with make_logger(LoggerConfig("wandb"), folder, {}) as ours:
        for step in (1, 2):
            ours.log(step, {"x": 1.0})
            ours.histograms(step, {"h": np.arange(3.0)})
            ours.checkpoint(step, folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "wandb: no; the run goes on without W&B, metrics.csv has everything"
    assert (folder / "metrics.csv").read_text().count("\n") == 3


def test_a_server_that_takes_no_more_at_the_end_costs_one_line(
    folder: Path,
    online: Callable[..., list[dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Late(FakeRun):
        settings = SimpleNamespace(sync_dir="/runs/a b/wandb/run-1")

        def finish(self) -> None:
            raise TimeoutError

    asked = online(Late(), lambda options: False)
    make_logger(LoggerConfig("wandb"), folder, {}).close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "wandb: the server does not take what is left; `wandb sync '/runs/a b/wandb/run-1'` "
        "uploads it"
    )
    settings = asked[0]["settings"]
    assert getattr(settings, "finish_timeout", 300.0) == 300.0
