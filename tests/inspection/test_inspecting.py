"""The folder of an inspection: what it holds, and that a failure leaves none."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from xlstm_rl import evaluate
from xlstm_rl.config import ConfigError
from xlstm_rl.errors import EnvError
from xlstm_rl.inspection import inspect_policy
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.memory.config import MEMORIES
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig
from xlstm_rl.policy.config import DistributionConfig

from .policies import made_for, remembers_the_cue

BOX = spaces.Box(-np.inf, np.inf, (2,), np.float32)
XLSTM = {"pattern": "ms", "width": 16, "num_heads": 2}


DRAWN = ("test_a_folder_holds_page_pictures_and_tables", "test_two_policies_stand_side_by_side")
"""Beginnings of the tests that draw pictures, which takes a second each."""


@pytest.fixture(autouse=True)
def _few_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.node.name.startswith(DRAWN):
        for name in ("draw_episode", "draw_erasing"):
            monkeypatch.setattr(
                f"xlstm_rl.inspection.inspecting.{name}", lambda path, *_: path.touch()
            )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _data(page: Path) -> Any:
    text = page.read_text("utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found[1])


def test_a_folder_holds_page_pictures_and_tables(tmp_path: Path) -> None:
    page = inspect_policy(remembers_the_cue(4), tmp_path / "new" / "out", episodes=2, erase=3)
    names = {one.name for one in page.parent.iterdir()}
    assert page.name == "index.html"
    assert names == {
        *("index.html", "episode_0.png", "episode_1.png", "steps.csv", "saliency.csv"),
        *("erasing.csv", "erasing.png"),
    }
    for name in names:
        if name.endswith(".png"):
            assert (page.parent / name).read_bytes().startswith(b"\x89PNG")


def test_the_table_of_steps_is_what_happened(tmp_path: Path) -> None:
    policy = remembers_the_cue(4)
    page = inspect_policy(policy, tmp_path, episodes=3, seed=5)
    rows = _rows(page.parent / "steps.csv")
    assert len(rows) == 3 * 5 and {row["run"] for row in rows} == {"policy"}
    for episode in range(3):
        own = [row for row in rows if row["episode"] == str(episode)]
        assert [row["step"] for row in own] == [*"01234"]
        assert float(own[-1]["return"]) == 1.0
        cue = float(own[0]["observation/2"])
        assert float(own[-1]["action"]) == (cue > 0)
        assert float(own[-1]["memory/0.0/norm_c"]) == pytest.approx(2 * np.tanh(2.0), rel=1e-5)


def test_the_table_of_saliency_has_a_line_for_each_pair_of_steps(tmp_path: Path) -> None:
    page = inspect_policy(remembers_the_cue(4), tmp_path)
    rows = _rows(page.parent / "saliency.csv")
    assert len(rows) == 5 * 6 // 2
    last = [float(row["weight"]) for row in rows if row["step"] == "4"]
    assert min(last[:2]) > 1e6 * max(last[2:])


def test_the_table_of_erasing_has_what_was_never_once_and_again_erased(tmp_path: Path) -> None:
    page = inspect_policy(remembers_the_cue(4), tmp_path, erase=20)
    rows = _rows(page.parent / "erasing.csv")
    once = {row["step"]: float(row["mean_return"]) for row in rows if row["erased"] == "once"}
    assert once["0"] == once["1"] == 1.0 and abs(once["2"]) < 0.9
    assert [row["step"] for row in rows if row["erased"] == "every"] == ["1", "2", "4"]
    (never,) = [row for row in rows if row["erased"] == "never"]
    assert float(never["mean_return"]) == 1.0 and never["episodes"] == "20"


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    page = inspect_policy(remembers_the_cue(4), tmp_path, erase=2)
    text = page.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")  # a name, not a place
    assert not re.search(r"https?:|//cdn|<link|\bsrc=|@import|\bfetch\(|url\(", text)
    assert "{{" not in text and text.count("</script>") == 2
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text


def test_a_name_cannot_break_the_page(tmp_path: Path) -> None:
    name = "</script><b>{{data}}"
    page = inspect_policy({name: remembers_the_cue(4)}, tmp_path)
    assert _data(page)["runs"][0]["name"] == name
    assert "<title>Inside &lt;/script&gt;" in page.read_text("utf-8")


def test_the_page_has_a_picture_and_every_number_of_each_step(tmp_path: Path) -> None:
    policy = made_for("TMaze", XLSTM, length=3)
    (run,) = _data(inspect_policy(policy, tmp_path))["runs"]
    (episode,) = run["episodes"]
    length = episode["length"]
    assert len(episode["frames"]) == length
    assert max(episode["frames"]) == len(episode["pictures"]) - 1
    assert all(one.startswith("data:image/png;base64,") for one in episode["pictures"])
    keys = [row["key"] for row in episode["rows"]]
    assert keys[:4] == ["observation", "probability", "value", "reward"]
    assert {"memory/input_gate", "memory/forget_gate", "memory/length", "memory/age"} < {*keys}
    assert {"memory/norm_C", "memory/norm_n", "memory/norm_c", "memory/norm_h"} < {*keys}
    lines = [line for row in episode["rows"] for line in row["lines"]]
    assert all(len(line["values"]) == length for line in lines)
    by_key = {row["key"]: row for row in episode["rows"]}
    heads = [line["label"] for line in by_key["memory/forget_gate"]["lines"]]
    assert heads == ["head 0.0", "head 0.1", "head 1.0", "head 1.1"]
    assert by_key["memory/norm_h"]["offset"] == 2, "a head has one colour"
    assert run["notes"] == []


def test_numbers_have_means_a_band_and_what_was_done(tmp_path: Path, any_spaces: Any) -> None:
    action = spaces.Box(-2, 2, (2,), np.float32)
    memory = MemoryConfig(kind="gru", width=8)
    wide = PolicyConfig(action_distribution=DistributionConfig(initial_log_std=0.0))
    policy = Policy(BOX, action, memory, wide, NormalizationConfig())
    env = any_spaces(BOX, action)
    with pytest.raises(ConfigError, match=r"cannot be drawn: .*render_mode.*--no-frames"):
        inspect_policy(policy, tmp_path / "drawn", env)
    assert not (tmp_path / "drawn").exists()
    page = inspect_policy(policy, tmp_path, env, deterministic=False, frames=False)
    (run,) = _data(page)["runs"]
    row = next(row for row in run["episodes"][0]["rows"] if row["key"] == "mean")
    for line in row["lines"]:
        low, high = line["band"]
        assert np.subtract(high, low) == pytest.approx([2 * 2.0] * len(low))  # deviation 2
        assert len(line["dots"]) == len(low)


def test_two_policies_stand_side_by_side_and_say_what_one_lacks(tmp_path: Path) -> None:
    policies = {
        "xlstm": made_for("MemoryChain", XLSTM, length=4),
        "mlp": made_for("MemoryChain", {"kind": "mlp", "width": 8}, length=4),
    }
    page = inspect_policy(policies, tmp_path, erase=2)
    runs = _data(page)["runs"]
    assert [run["name"] for run in runs] == [*policies]
    assert runs[1]["notes"] == ["No gates, ages and norms: the memory mlp has no state."]
    assert runs[1]["erasing"]["every"] is None and len(runs[1]["erasing"]["once"]) == 1
    rows = _rows(page.parent / "steps.csv")
    assert [row["run"] for row in rows] == ["xlstm"] * 5 + ["mlp"] * 5
    assert rows[0]["memory/0.0/age"] == "0" and rows[-1]["memory/0.0/age"] == ""
    # both saw the same environment
    seen = [[row["observation/2"] for row in rows if row["run"] == name] for name in policies]
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "memory", [{"pattern": "m", "num_heads": 2}, {"kind": "lstm"}, {"kind": "gru"}]
)
def test_every_memory_and_its_critic_have_rows(memory: Any, tmp_path: Path) -> None:
    policy = made_for("TMaze", {"width": 8, **memory}, {"critic": "separate"}, length=3)
    (run,) = _data(inspect_policy(policy, tmp_path, saliency_steps=0))["runs"]
    titles = [row["title"] for row in run["episodes"][0]["rows"]]
    assert {"forget gate", "critic: forget gate"} < {*titles}
    assert run["episodes"][0]["saliency"] is None
    assert not (tmp_path / "saliency.csv").exists()


@pytest.mark.parametrize("kind", MEMORIES.classes)
def test_no_kind_of_memory_is_left_out(kind: str, tmp_path: Path) -> None:
    policy = made_for("MemoryChain", {"kind": kind, "width": 16}, length=3)
    page = inspect_policy(policy, tmp_path, erase=2, frames=False)
    (run,) = _data(page)["runs"]
    keys = [row["key"] for row in run["episodes"][0]["rows"]]
    state = policy.network.trunk.memory.state_keys
    assert any("norm_" in key for key in keys) == bool(state)
    assert ("memory/forget_gate" in keys) != any("gates" in note for note in run["notes"])
    labels = [line["label"] for row in run["episodes"][0]["rows"] for line in row["lines"]]
    assert not [label for label in labels if "block_" in label]
    once = run["erasing"]["once"]
    assert once[0]["mean"][0] == run["erasing"]["intact"], "the first state is fresh already"


def test_an_option_without_a_range_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    for name, value in (("episodes", 0), ("max_steps", 0), ("erase", -1), ("integrated", 1.5)):
        with pytest.raises(ConfigError, match=name):
            inspect_policy(remembers_the_cue(4), tmp_path / "out", **{name: value})
    with pytest.raises(ConfigError, match="no policy"):
        inspect_policy({}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = made_for("TMaze", XLSTM, length=3)
    monkeypatch.setattr("xlstm_rl.envs.tasks.tmaze.TMaze.step", lambda *_: 1 / 0)
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "a" / "b", tmp_path / "empty"):
        with pytest.raises(EnvError, match="ZeroDivisionError"):
            inspect_policy(policy, out)
    assert [one.name for one in tmp_path.iterdir()] == ["empty"]
    assert not any((tmp_path / "empty").iterdir())


def test_what_is_in_the_way_is_kept(tmp_path: Path) -> None:
    file, full = tmp_path / "file", tmp_path / "full"
    file.write_text("mine")
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    for out, said in ((file, "is a file"), (full, "not empty"), (file / "below", "cannot be")):
        with pytest.raises(ConfigError, match=said):
            inspect_policy(remembers_the_cue(4), out)
    assert [*full.iterdir()] == [full / "notes.txt"] and file.read_text() == "mine"


def test_overwriting_replaces_the_files_of_before_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    inspect_policy(remembers_the_cue(4), tmp_path, episodes=3, erase=2, overwrite=True)
    inspect_policy(remembers_the_cue(4), tmp_path, overwrite=True)
    assert {one.name for one in tmp_path.iterdir()} == {
        *("notes.txt", "index.html", "episode_0.png", "steps.csv", "saliency.csv")
    }


def test_the_episodes_are_those_of_an_evaluation(tmp_path: Path) -> None:
    policy = made_for("RepeatPrevious", XLSTM, k=2)
    env = policy.env_config
    assert env is not None
    inspect_policy(policy, tmp_path, seed=3, saliency_steps=5, frames=False)
    rows = _rows(tmp_path / "steps.csv")
    known = evaluate(policy, env.__class__(**{**vars(env), "vectorization": "sync"}), 1, 3)
    assert float(rows[-1]["return"]) == pytest.approx(known.mean, abs=1e-6)
