"""The cases are options that exist, and the table leaves no run out in silence."""

import csv
import importlib
import math
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from xlstm_rl.cli.compare import CompareOptions
from xlstm_rl.comparing.job import DONE, FAILED, Job, Result
from xlstm_rl.comparing.report import Report
from xlstm_rl.comparing.summary import Outcome
from xlstm_rl.config import parse_config
from xlstm_rl.envs.single_env import make_env

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def learning(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("learning.results")
    for name in [name for name in sys.modules if name.partition(".")[0] == "learning"]:
        del sys.modules[name]


def test_the_options_of_every_case_are_options(learning: ModuleType) -> None:
    for name, case in learning.ALL.items():
        config = parse_config(CompareOptions, shlex.split(case.options))
        assert config.env.id != CompareOptions().env.id or name.endswith("cartpole")
        assert case.seeds == 1 if name.startswith("others_") else case.seeds in (2, 5)


@pytest.mark.filterwarnings("ignore:Maze environments have been shown:DeprecationWarning")
def test_the_environment_of_every_case_can_be_made(learning: ModuleType) -> None:
    for module in ("Box2D", "mazelib", "minigrid", "mujoco", "popgym"):
        pytest.importorskip(module)
    for case in learning.CASES.values():
        config = parse_config(CompareOptions, shlex.split(case.options))
        env = make_env(config.env)
        env.reset(seed=0)
        env.close()


def _outcome(folder: Path, seed: int, result: Result) -> Outcome:
    job = Job("PendulumNoVel-v1", "xlstm", seed, folder, {}, {"episodes": 2}, 64, 1000)
    return Outcome(job, result)


def test_the_table_names_what_failed_and_what_was_not_run(
    learning: ModuleType, tmp_path: Path
) -> None:
    outcomes = [
        _outcome(tmp_path, 0, Result(DONE, returns=[-100.0, -300.0], steps=99_328)),
        _outcome(tmp_path, 1, Result(DONE, returns=[-150.0, -150.0], steps=99_328)),
        _outcome(tmp_path, 2, Result(FAILED, "it diverged")),
    ]
    case = learning.CASES["pendulum"]
    path = learning.write("pendulum", case, Report(outcomes, 2), "the command", tmp_path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["return"]) for row in rows[:2]] == [-200.0, -150.0]
    assert math.isnan(float(rows[2]["return"])) and rows[2]["error"] == "it diverged"
    assert rows[0]["commit"] and rows[0]["machine"] and rows[0]["command"] == "the command"
    table = learning.page(learning.read(tmp_path))
    assert "| 2/3* | -175.00* [-200.00, -150.00] | -200.00, -150.00, failed | -170 |" in table
    assert "| cartpole | 60,000 | - | 0/5 | not run |" in table
    learning.draw(learning.read(tmp_path), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_memories_side_by_side_have_a_row_each(learning: ModuleType, tmp_path: Path) -> None:
    case = learning.ALL["memories_cartpole"]
    outcomes = [
        _outcome(tmp_path, seed, Result(DONE, returns=[best], steps=10))
        for seed, best in ((0, 100.0), (1, 300.0))
    ]
    outcomes += [
        replace(one, job=replace(one.job, memory="gru", weights=2000), result=None)
        for one in outcomes
    ]
    learning.write("memories_cartpole", case, Report(outcomes, 2), "the command", tmp_path)
    lines = learning.compared(learning.read(tmp_path), {"memories_cartpole": case}).splitlines()
    first = "| memories_cartpole | 60,000 | `xlstm` | 1,000 | 2/2 | 200.00 [100.00, 300.00] |"
    assert lines[2] == f"{first} 100.00, 300.00 | nan |"
    assert lines[3].startswith("| memories_cartpole | 60,000 | `gru` | 2,000 | 0/2* | failed |")


def test_a_case_that_is_run_in_parts_keeps_every_part(
    learning: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = learning.CASES["pendulum"]
    for seed, value, commit in ((1, -150.0, "older"), (0, -200.0, "newer"), (1, -140.0, "newest")):
        monkeypatch.setattr(learning, "_commit", lambda commit=commit: commit)
        outcomes = [_outcome(tmp_path, seed, Result(DONE, returns=[value], steps=99_328))]
        learning.write("pendulum", case, Report(outcomes, 2), f"seed {seed}", tmp_path)
    rows = learning.read(tmp_path)["pendulum"]
    assert [(row["seed"], row["return"], row["commit"], row["command"]) for row in rows] == [
        ("0", "-200.0", "newer", "seed 0"),
        ("1", "-140.0", "newest", "seed 1"),
    ]
    line = next(one for one in learning.page(learning.read(tmp_path)).splitlines() if "pend" in one)
    assert "| 2/2 |" in line and line.endswith("| newer, newest |")


def test_rows_of_another_library_stand_behind_ours(learning: ModuleType, tmp_path: Path) -> None:
    rows = [{"memory": "sb3", "seed": 0, "return": 7.0, "seconds": 1.0, "weights": 3}]
    learning.save("peers_hopper.sb3", rows, "theirs", tmp_path)
    learning.save("peers_hopper", [{**rows[0], "memory": "xlstm"}], "ours", tmp_path)
    found = learning.read(tmp_path)
    assert [row["memory"] for row in found["peers_hopper"]] == ["xlstm", "sb3"]
    lines = learning.compared(found, importlib.import_module("learning.cases").PEERS).splitlines()
    assert sum(line.startswith("| peers_hopper | 200,000 |") for line in lines) == 2


def test_success_is_what_paid_where_the_environment_says_nothing(
    learning: ModuleType, tmp_path: Path
) -> None:
    results = [Result(DONE, returns=[0.9, 0.0, 0.8, 0.7], steps=99)]
    results.append(replace(results[0], success_rate=0.5))
    outcomes = [_outcome(tmp_path, seed, one) for seed, one in enumerate(results)]
    case = learning.CASES["minigrid_memory_s7"]
    learning.write("minigrid_memory_s7", case, Report(outcomes, 2), "", tmp_path)
    rows = learning.read(tmp_path)["minigrid_memory_s7"]
    assert [float(row["success"]) for row in rows] == [0.75, 0.5]
