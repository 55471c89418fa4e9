"""`xlstm-rl inspect`: what it writes, and what it refuses in one line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlstm_rl.cli import main

TRAIN = ("train", "--total-steps", "1", "--env.num-envs", "2", "--agent.rollout-steps", "4")
TASK = ("--env.id", "xlstm_rl/TMaze-v0", "--env.kwargs.length", "3", "--agent.minibatches", "1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "demo"
    kind = ("--memory.width", "16", "--logger.kind", "none")
    assert main([*TRAIN, *TASK, *kind, "--run-dir", str(folder)]) == 0
    return folder


def _names(page: Path) -> list[Any]:
    found = re.search(r'<script id="data"[^>]*>(.*?)</script>', page.read_text("utf-8"), re.S)
    assert found is not None
    return [one["name"] for one in json.loads(found[1])["runs"]]


def test_the_page_is_named_and_is_there(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "seen"
    words = ["--erase", "2", "--integrated", "2", "--saliency-steps", "3", "--stochastic"]
    assert main(["inspect", str(run), "--out", str(out), *words]) == 0
    assert capsys.readouterr().out == f"wrote {out / 'index.html'}\n"
    assert (out / "erasing.png").exists() and _names(out / "index.html") == ["demo"]


def test_two_runs_of_one_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    words = ["--out", str(tmp_path / "out"), "--no-frames", "--saliency-steps", "0"]
    assert main(["inspect", str(run), str(run), *words]) == 0
    assert _names(tmp_path / "out" / "index.html") == [f"{run} (1)", f"{run} (2)"]


def test_an_episode_that_never_ends_is_cut(run: Path, tmp_path: Path) -> None:
    words = ["--max-steps", "2", "--no-frames", "--out", str(tmp_path / "out")]
    assert main(["inspect", str(run), *words]) == 0
    assert len((tmp_path / "out" / "steps.csv").read_text().splitlines()) == 3


def test_bad_input_is_one_line_and_leaves_nothing(
    run: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out = tmp_path / "out"
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_text("{}")
    for runs, words, said in (
        ([bare], [], "no checkpoint yet"),
        ([tmp_path / "nowhere"], [], "no such folder"),
        ([run, tmp_path / "nowhere"], [], "no such folder"),
        ([run], ["--max-steps", "0"], "max_steps"),
        ([run], ["--episodes", "0"], "episodes"),
        ([run], ["--integrated", "-1"], "integrated"),
        ([run], ["--env.id", "Nothing-v9"], "Nothing"),
        ([run], ["--env.id", "CartPole-v1"], "observation_space"),
        ([run], ["--eraze", "3"], "did you mean"),
    ):
        line = refused("inspect", *map(str, runs), "--out", str(out), *words)
        assert said in line, line
        assert not out.exists() and not [*tmp_path.glob(".*")]
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "--overwrite" in refused("inspect", str(run), "--out", str(out))
    assert [one.name for one in out.iterdir()] == ["mine.txt"]
    assert "is a file" in refused("inspect", str(run), "--out", str(out / "mine.txt"))
    assert "--out" in refused("inspect", str(run))
