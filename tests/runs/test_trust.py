"""A folder from elsewhere runs nothing: whatever it names, pickles or claims."""

import importlib
import json
import os
import pickle
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.cli import main
from xlstm_rl.errors import CheckpointError

STEP = "32"
MARK = "something-ran"

EVIL = f"""
from pathlib import Path
Path(__file__).with_name({MARK!r}).write_text("import")
import gymnasium

class Thing:
    config_class = None
    def __init__(self, *args, **kwargs):
        Path(__file__).with_name({MARK!r}).write_text("call")

gymnasium.register("Evil-v0", entry_point=Thing)
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    agent = RecurrentPPO(
        "CartPole-v1",
        run_dir=str(run),
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
    )
    with agent:
        agent.learn(int(STEP))
    return run


@pytest.fixture
def run(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with a module beside it, in a working folder and on a path that find it."""
    run = tmp_path / "run"
    shutil.copytree(template, run)
    for folder in (tmp_path, run, run / "checkpoints" / STEP):
        (folder / "evil.py").write_text(EVIL)
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend(str(run))
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    return run


def change_policy(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = run / "checkpoints" / STEP / "policy.yaml"
    found = yaml.safe_load(path.read_text())
    change(found)
    path.write_text(yaml.safe_dump(found))


def change_trainer(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change `trainer.pt` as somebody would who knows its format."""
    path = run / "checkpoints" / STEP / "trainer.pt"
    state = torch.load(path, weights_only=True)
    state["files"] = {}
    change(state)
    torch.save(state, path)


def loads(run: Path) -> list[Callable[[], Any]]:
    return [
        lambda: load_policy(run),
        lambda: RecurrentPPO.load(run).close(),
    ]


def assert_nothing_ran(run: Path) -> None:
    assert not list(run.parent.rglob(MARK))
    assert "evil" not in sys.modules


NAMED: dict[str, Callable[[dict[str, Any]], object]] = {
    "env.id": lambda c: c["env"].update(id="evil:Evil-v0"),
    "env.wrappers": lambda c: c["env"].update(wrappers={"evil:Thing": {}}),
    "env.wrappers.Delay.steps": lambda c: c["env"].update(
        wrappers={"Delay": {"steps": "evil:Thing"}}
    ),
    "env.kwargs.env_id": lambda c: c["env"].update(kwargs={"env_id": "evil:Evil-v0"}),
    "memory.kind": lambda c: c["memory"].update(kind="evil:Thing"),
    "memory": lambda c: c.update(memory="evil:Thing"),
    "policy.action_distribution.kind": lambda c: c["policy"].update(
        action_distribution={"kind": "evil:Thing"}
    ),
    "policy.encoder": lambda c: c["policy"].update(encoder="evil:Thing"),
}


@pytest.mark.parametrize("path", NAMED)
def test_code_that_a_policy_names_is_refused_in_one_line(path: str, run: Path) -> None:
    change_policy(run, NAMED[path])
    for load in loads(run):
        with pytest.raises(CheckpointError, match="trust_code=True") as refused:
            load()
        assert f"{path} names evil:" in str(refused.value) and "\n" not in str(refused.value)
    assert_nothing_ran(run)


@pytest.mark.parametrize("path", [*NAMED, "logger.kind"])
def test_code_that_a_trainers_state_names_is_refused(
    path: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = NAMED.get(path, lambda c: c["logger"].update(kind="csv,evil:Thing"))
    change_policy(run, change if path != "logger.kind" else lambda _: None)
    change_trainer(run, lambda state: change(state["config"]))
    assert main(["resume", str(run), "--total-steps", "1000"]) == 2
    said = capsys.readouterr().err
    assert "evil:" in said and said.count("\n") == 1
    assert main(["eval", str(run)]) == (2 if path != "logger.kind" else 0)
    assert_nothing_ran(run)


def test_the_configuration_and_the_pointer_of_a_run_run_nothing(run: Path) -> None:
    (run / "config.yaml").write_text("memory: !!python/object/apply:os.system ['touch marked']\n")
    load_policy(run)
    for text in ("../../../elsewhere", "/etc", "32/../32"):
        (run / "latest").write_text(text)
        with pytest.raises(CheckpointError):
            load_policy(run)
    assert not (run / "marked").exists()


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/name:evil.Thing", "!!python/module:evil"]
)
def test_tags_of_yaml_run_nothing(tag: str, run: Path) -> None:
    path = run / "checkpoints" / STEP / "policy.yaml"
    path.write_text(f"memory: {tag} ['touch marked']\n{path.read_text()}")
    for load in loads(run):
        with pytest.raises(CheckpointError, match=r"policy\.yaml"):
            load()
    path.write_text(f"x: {tag}\n")
    with pytest.raises(CheckpointError, match=r"policy\.yaml"):
        load_policy(run)
    assert not (run / "marked").exists()
    assert_nothing_ran(run)


class Payload:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {MARK}",)


@pytest.mark.parametrize("form", ["pickle", "torch", "inside"])
def test_a_pickle_in_place_of_the_trainers_state_runs_nothing(form: str, run: Path) -> None:
    path = run / "checkpoints" / STEP / "trainer.pt"
    if form == "inside":
        state = torch.load(path, weights_only=True)
        torch.save({**state, "budget": Payload()}, path)
    elif form == "torch":
        torch.save(Payload(), path)
    else:
        path.write_bytes(pickle.dumps(Payload()))
    damaged = r"trainer\.pt: damaged, or not written by"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")  # as an error one would end the loading by itself
        with pytest.raises(CheckpointError, match=damaged) as error:
            RecurrentPPO.load(run)
    assert "\n" not in str(error.value) and not told
    load_policy(run)  # needs none of it
    assert_nothing_ran(run)


def test_a_pickle_in_place_of_an_environments_state_runs_nothing(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pickle.dumps(Payload())

    def plant(state: dict[str, Any]) -> None:
        found = state["collector"]["environments"]
        size = len(found["arrays"])
        nodes = json.loads(found["structure"])
        nodes[3].append(["planted", ["pickle", 10**6, size, len(data)]])
        found["structure"] = json.dumps(nodes)
        found["arrays"] = torch.cat(
            [found["arrays"], torch.frombuffer(bytearray(data), dtype=torch.uint8)]
        )

    change_trainer(run, plant)
    with RecurrentPPO.load(run) as agent:
        agent.learn(16)
    assert "is pickled in it, which may run any code" in capsys.readouterr().err
    assert_nothing_ran(run)


@pytest.mark.parametrize("attribute", ["step", "reset", "close"])
def test_an_environments_state_hides_no_method(
    attribute: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def plant(state: dict[str, Any]) -> None:
        found = state["collector"]["environments"]
        nodes = json.loads(found["structure"])
        nodes[3].append([attribute, ["same", 0]])
        found["structure"] = json.dumps(nodes)

    change_trainer(run, plant)
    with RecurrentPPO.load(run) as agent:
        agent.learn(16)
    assert f"attribute '{attribute}' would hide a method" in capsys.readouterr().err


def test_an_environment_of_an_extra_needs_no_trust_where_it_is_the_installed_one(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minigrid")
    monkeypatch.delitem(sys.modules, "minigrid")  # as in a process that has not imported it
    change_policy(run, lambda found: found["env"].update(id="minigrid:MiniGrid-FourRooms-v0"))
    assert load_policy(run).env_config.id == "minigrid:MiniGrid-FourRooms-v0"
    (run / "minigrid.py").write_text(EVIL)  # in front of the installed one on the path
    importlib.invalidate_caches()
    with pytest.raises(CheckpointError, match=r"env\.id names minigrid:MiniGrid-FourRooms-v0"):
        load_policy(run)
    (run / "minigrid.py").unlink()
    change_policy(run, lambda found: found["memory"].update(kind="minigrid:register"))
    with pytest.raises(CheckpointError, match=r"memory\.kind names minigrid:register"):
        load_policy(run)
    assert_nothing_ran(run)


def test_trust_lets_the_code_be_imported(run: Path) -> None:
    change_policy(run, NAMED["memory.kind"])
    with pytest.raises(CheckpointError, match="config_class"):
        load_policy(run, trust_code=True)
    assert (run / MARK).read_text() == "import"


def test_what_this_process_trained_with_needs_no_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_of_trust.py").write_text(
        "from gymnasium import Wrapper\nclass Same(Wrapper):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    agent = RecurrentPPO(
        "CartPole-v1",
        run_dir=str(tmp_path / "run"),
        env={"num_envs": 2, "wrappers": {"mine_of_trust:Same": {}}},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
    )
    with agent:
        agent.learn(16)
    load_policy(tmp_path / "run")
    with RecurrentPPO.load(tmp_path / "run") as loaded:
        loaded.learn(16)
