"""Runs recorded offline with W&B before 0.31, simulated where a newer one is installed."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from xlstm_rl import versions
from xlstm_rl.runs.loggers import wandb_versions
from xlstm_rl.runs.loggers.wandb_versions import await_free_folder, offline_resume


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("0.19.10", {}),
        ("0.30.0", {}),
        ("0.31.0", {"resume": "allow"}),
        ("0.100.0.dev1", {"resume": "allow"}),
        ("1.0.0", {"resume": "allow"}),
    ],
)
def test_resume_is_asked_for_where_it_is_not_ignored(
    version: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "version", lambda package: version)
    assert offline_resume() == options


class Clock:
    """A clock that stands but for what is slept."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.5

    def strftime(self, form: str) -> str:
        return time.strftime(form, time.localtime(self.now))

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("numbers_folders", [False, True])
@pytest.mark.parametrize("there", ["mine", "another", ""])
def test_a_folder_of_this_second_is_not_written_over(
    there: str, numbers_folders: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock: Any = Clock()
    fields = ["x_sync_dir_suffix"] if numbers_folders else []
    monkeypatch.setattr(wandb, "Settings", SimpleNamespace(model_fields=fields))
    monkeypatch.setattr(wandb_versions, "time", clock)
    if there:
        second = clock.strftime("%Y%m%d_%H%M%S")
        (tmp_path / "wandb" / f"offline-run-{second}-{there}").mkdir(parents=True)
    before = clock.now
    await_free_folder(tmp_path, "mine")
    waited = clock.now - before
    if there == "mine" and not numbers_folders:
        assert 0.5 <= waited < 0.55
    else:
        assert waited == 0
