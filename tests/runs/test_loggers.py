import copy
import csv
import json
import math
import os
import pickle
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from xlstm_rl.agents import TrainConfig
from xlstm_rl.config import ConfigError, config_from_dict, config_to_dict, parse_config
from xlstm_rl.runs.loggers import LoggerConfig, make_logger, register_logger
from xlstm_rl.runs.loggers.config import LOGGERS


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_per_update_which_is_on_disk_at_once(tmp_path: Path) -> None:
    logger = make_logger(LoggerConfig(), tmp_path, {})
    logger.log(128, {"time/sps": 9, "episode/length": torch.tensor(3.0), "episode/return": 1.5})
    assert rows(tmp_path) == [
        {"step": "128", "episode/return": "1.5", "episode/length": "3.0", "time/sps": "9.0"}
    ]
    logger.close()


def test_a_metric_that_comes_late_or_goes_missing_leaves_the_table_whole(tmp_path: Path) -> None:
    with make_logger(LoggerConfig(), tmp_path, {}) as logger:
        logger.log(1, {"loss/policy": 0.1})
        logger.log(2, {"episode/return": math.nan, "a,b": 0.2})
        logger.log(3, {"loss/policy": 0.3})
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines == [
        'step,episode/return,episode/length,time/sps,loss/policy,"a,b"',
        "1,,,,0.1,",
        "2,nan,,,,0.2",
        "3,,,,0.3,",
    ]
    assert os.listdir(tmp_path) == ["metrics.csv"]


def test_a_logger_opened_again_goes_on_below_the_last_row(tmp_path: Path) -> None:
    for step in (1, 2):
        with make_logger(LoggerConfig(), tmp_path, {}) as logger:
            logger.log(step, {"loss/value": step})
    assert [(row["step"], row["loss/value"]) for row in rows(tmp_path)] == [
        ("1", "1.0"),
        ("2", "2.0"),
    ]


def test_none_writes_nothing(tmp_path: Path) -> None:
    with make_logger(LoggerConfig(kind="none"), tmp_path, {}) as logger:
        logger.log(1, {"episode/return": 1.0})
    assert os.listdir(tmp_path) == []


def test_tensorboard_reads_the_scalars_back(tmp_path: Path) -> None:
    with make_logger(LoggerConfig(kind="tensorboard"), tmp_path, {}) as logger:
        logger.log(128, {"episode/return": 1.5})
        logger.log(256, {"episode/return": 2.5})
    assert len(rows(tmp_path)) == 2

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = events.Scalars("episode/return")
    assert [(one.step, one.value) for one in scalars] == [(128, 1.5), (256, 2.5)]


@pytest.mark.usefixtures("no_wandb_account")
def test_wandb_without_a_key_records_offline_and_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with make_logger(LoggerConfig(kind="wandb", tags=("t",)), run, {"seed": 1}) as logger:
        logger.log(128, {"episode/return": 1.5})
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert "no API key" in output.err
    assert "wandb sync" in output.err
    assert rows(run)[0]["episode/return"] == "1.5"
    (recorded,) = run.glob("wandb/offline-run-*/*.wandb")
    # `finish` returns before W&B's own process has written the last of the file.
    deadline = time.monotonic() + 30
    while not (found := read_wandb(recorded))[0] and time.monotonic() < deadline:
        time.sleep(0.1)
    steps, axes = found
    assert steps == [{"step": 128.0, "episode/return": 1.5}]
    assert ("*", "step") in axes


@pytest.mark.usefixtures("no_wandb_account")
def test_wandb_that_fails_to_start_is_recorded_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "no such key")
    with make_logger(LoggerConfig(kind="wandb"), tmp_path, {}) as logger:
        logger.log(1, {"episode/return": 1.5})
    assert "recording offline" in capsys.readouterr().err
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of a W&B file: 7 bytes, then LevelDB's log format with blocks of 32 KiB."""
    data, position, block = path.read_bytes(), 7, 32768
    record = b""
    while position + 7 <= len(data):
        if block - position % block < 7:  # no header fits: padding
            position += block - position % block
            continue
        size, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        record += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""


def read_wandb(path: Path) -> tuple[list[dict[str, float]], list[tuple[str, str]]]:
    """Logged points, and pairs of a metric and its x axis, in a W&B file."""
    from wandb.proto import wandb_internal_pb2

    points, axes = [], []
    for data in wandb_records(path):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            points.append({key: v for key, v in values.items() if not key.startswith("_")})
        elif record.WhichOneof("record_type") == "metric":
            axes.append((record.metric.name or record.metric.glob_name, record.metric.step_metric))
    return points, axes


def test_several_loggers_at_once_each_get_every_row(tmp_path: Path) -> None:
    with make_logger(LoggerConfig(kind="tensorboard,csv"), tmp_path, {}) as logger:
        logger.log(1, {"episode/return": 1.0})
    assert len(rows(tmp_path)) == 1
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize("kind", ["csv,wandb", ["csv", "wandb"], ("csv", "wandb"), "csv, wandb"])
def test_several_loggers_have_the_options_of_all(kind: Any) -> None:
    config = LoggerConfig(kind=kind, project="p")
    assert config == config_from_dict(LoggerConfig, {"kind": kind, "project": "p"})
    assert (config.kind, config.project, config.tags) == ("csv,wandb", "p", ())
    assert config_from_dict(LoggerConfig, config_to_dict(config)) == config
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    words = ["--logger.kind", "csv,wandb", "--logger.project", "p"]
    assert parse_config(TrainConfig, words).logger == config


@pytest.mark.parametrize("kind", [kind for kind in LOGGERS.classes if kind != "wandb"])
def test_an_option_of_another_logger_is_refused(kind: str) -> None:
    message = f"logger.project: an option of logger.kind=wandb, but logger.kind is {kind}"
    with pytest.raises(ValueError, match=message):
        LoggerConfig(kind=kind, project="p")
    with pytest.raises(ConfigError, match=f"--{message}"):
        parse_config(TrainConfig, ["--logger.project", "p", "--logger.kind", kind])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("wadnb", "expected csv, tensorboard, .*; did you mean wandb"),
        ("csv,wadnb", "did you mean wandb"),
        ("none,csv", "none alone"),
        ("math:pi", "lacks `config_class`"),
    ],
)
def test_unknown_loggers_are_refused(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"logger.kind: .*{message}"):
        LoggerConfig(kind=kind)


def test_a_file_of_version_0_1_holds_the_options_of_wandb_for_every_kind() -> None:
    old = {"project": "p", "name": None, "group": None, "tags": []}
    assert config_from_dict(LoggerConfig, {"kind": "csv", **old}) == LoggerConfig()
    assert config_from_dict(LoggerConfig, {"kind": "wandb", **old}).project == "p"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("no_wandb_account")
@pytest.mark.parametrize("kind", [kind for kind in LOGGERS.classes if kind != "none"])
def test_every_logger_goes_on_where_it_stopped_and_stays_in_the_run_folder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.chdir(tmp_path)
    for step in (1, 2):
        with make_logger(LoggerConfig(kind=kind), run, {"seed": 1}) as logger:
            logger.log(step, {"episode/return": math.nan, "loss/value": 0.5})
            logger.log(step + 10, {"loss/new": 1.0})
    assert [row["step"] for row in rows(run)] == ["1", "11", "2", "12"]
    assert sorted(os.listdir(tmp_path)) == ["home", "run"]


MODULE = """
from dataclasses import dataclass

from xlstm_rl.runs.loggers import LoggerConfig


@dataclass(frozen=True)
class LinesConfig(LoggerConfig):
    kind: str = "foreign_logger:Lines"
    file: str = "lines.txt"


class Lines:
    config_class = LinesConfig

    def __init__(self, config, folder, run_config):
        self.file = (folder / config.file).open("a")
        print(run_config["seed"], file=self.file)

    def write(self, step, metrics):
        print(step, *metrics.items(), file=self.file, flush=True)

    def close(self):
        self.file.close()
"""


def test_a_logger_of_another_module_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign_logger.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["--logger.kind", "tensorboard,foreign_logger:Lines", "--logger.file", "a.txt"]
    config = parse_config(TrainConfig, words).logger
    with make_logger(config, tmp_path, {"seed": 7}) as logger:
        logger.log(3, {"x": 1})
    assert (tmp_path / "a.txt").read_text() == "7\n3 ('x', 1.0)\n"
    assert len(rows(tmp_path)) == 1

    import foreign_logger  # type: ignore[import-not-found]

    monkeypatch.setattr(LOGGERS, "classes", dict(LOGGERS.classes))
    register_logger(foreign_logger.LinesConfig, foreign_logger.Lines)
    assert "foreign_logger:Lines" in LOGGERS.classes
    make_logger(LoggerConfig(kind="foreign_logger:Lines"), tmp_path, {"seed": 8}).close()
    assert (tmp_path / "lines.txt").read_text() == "8\n"


def test_a_table_that_somebody_removes_or_replaces_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    with make_logger(LoggerConfig(kind="csv"), tmp_path, {}) as logger:
        logger.log(1, {"x": 1.0})
        path.unlink()
        logger.log(2, {"x": 2.0})
        logger.log(3, {"y": 3.0})
        assert [(row["step"], row["x"], row["y"]) for row in rows(tmp_path)] == [
            ("2", "2.0", ""),
            ("3", "", "3.0"),
        ]
        (tmp_path / "edited").write_text("step,y\n3,3.0\n")  # as an editor saves
        (tmp_path / "edited").replace(path)
        logger.log(4, {"y": 4.0})
    assert rows(tmp_path) == [{"step": "3", "y": "3.0"}, {"step": "4", "y": "4.0"}]
