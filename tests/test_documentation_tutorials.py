"""The tutorials run from top to bottom, each in a folder of its own.

Quickly in this process, with budgets of one rollout; and as a reader would, each command a process
of its own, with the budgets of the page (`pytest -m slow`).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from xlstm_rl.runs import trust

from .pages import ROOT, TUTORIALS, Snippet
from .test_documentation import EXTRAS, commands, run_command, shortened

PAGES = sorted({one.page for one in TUTORIALS})
SHELLS = ("sh", "bash")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb_offline: None) -> Iterator[Path]:
    """An empty folder to be in, whose modules and environments are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    here = {n for n, m in sys.modules.items() if str(tmp_path) in str(getattr(m, "__file__", ""))}
    for name in here:
        del sys.modules[name]
    for name, spec in list(gymnasium.registry.items()):
        if getattr(spec.entry_point, "__module__", None) in here:
            del gymnasium.registry[name]


def _blocks(page: str) -> list[Snippet]:
    return [one for one in TUTORIALS if one.page == page]


def _write_files(blocks: list[Snippet], place: Path) -> None:
    for one in blocks:
        if one.title:
            (place / one.title).write_text(one.text, encoding="utf-8")


def _is_left_out(line: str) -> bool:
    """What installs, and what needs a package that is not there."""
    installs = line.startswith("pip ") or "/pip " in line or "-m venv" in line
    return installs or any(w in line and find_spec(name) is None for w, name in EXTRAS.items())


LONG = ("docs/learn/own_environment.md", "docs/learn/look_inside.md")


@pytest.mark.parametrize(
    "page", [pytest.param(one, marks=pytest.mark.slow) if one in LONG else one for one in PAGES]
)
def test_a_tutorial_runs_from_top_to_bottom(
    page: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in _blocks(page):
        _write_files([block], place)
        if block.language == "python" and not block.title:
            exec(compile(shortened(block.text), str(block), "exec"), names)
        elif block.language in SHELLS:
            for words in commands(block.text):
                trust._configured.clear()  # a command is a process of its own
                run_command(words, monkeypatch, for_real=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_tutorial_runs_as_a_reader_runs_it(page: str, place: Path) -> None:
    command = place / "bin" / "xlstm-rl"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m xlstm_rl "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    paths = {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{place}"}
    python = ""
    for block in _blocks(page):
        _write_files([block], place)
        if block.language in SHELLS:
            lines = [one for one in block.text.splitlines() if not _is_left_out(one)]
            script = ["bash", "-euc", "\n".join(lines)]
        elif block.language == "python" and not block.title:
            python += block.text  # what a block defines the next ones may use
            script = [sys.executable, "-c", python]
        else:
            continue
        done = subprocess.run(script, env=os.environ | paths, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}: {done.stderr[-2000:]}"


def test_the_sweep_of_the_tutorial_is_made_of_trainings() -> None:
    import yaml

    from xlstm_rl.cli.train import TrainOptions
    from xlstm_rl.config import parse_config

    sweep = yaml.safe_load(next(one.text for one in TUTORIALS if one.title == "sweep.yaml"))
    fixed = [word for word in sweep["command"] if word.startswith("--")]
    for name, values in sweep["parameters"].items():
        for value in values.get("values", [values.get("min"), values.get("max")]):
            options = parse_config(TrainOptions, [*fixed, f"--{name}={value}"])
            assert options.logger.kind == "wandb"
