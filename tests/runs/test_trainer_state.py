"""Checkpoints that are damaged, altered or foreign: one clear line, and nothing is overwritten."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.cli import main
from xlstm_rl.errors import CheckpointError

STEP = "32"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    agent = RecurrentPPO(
        "CartPole-v1",
        run_dir=str(run),
        total_steps=64,
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
    )
    with agent:
        agent.learn(64, lambda step, _: step < int(STEP))
    return run


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_refused(run: Path, capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    """Resume from the command line: status 2, one line, and every file as it was."""
    before = contents(run)
    assert main(["resume", str(run)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said, said
    for part in parts:
        assert part in said, said
    assert contents(run) == before


def altered(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update(values)


def _forget(name: str) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        del state[name]

    return change


def _other_weights(state: dict[str, Any]) -> None:
    for values in state["optimizer"]["state"].values():
        values["exp_avg"] = torch.zeros(3)


def _other_option(state: dict[str, Any]) -> None:
    state["config"]["agent"]["of_a_later_version"] = 3


@pytest.mark.parametrize("size", [0, 10, 1000, -100, -1])
@pytest.mark.parametrize("name", ["trainer.pt", "policy.safetensors", "policy.yaml"])
def test_a_truncated_file_is_one_clear_line(
    name: str, size: int, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "checkpoints" / STEP / name
    path.write_bytes(path.read_bytes()[:size])
    assert_refused(run, capsys, "checkpoints/32")


def test_a_folder_in_the_place_of_latest_is_found_before_training(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "latest").unlink()
    (run / "latest").mkdir()
    assert_refused(run, capsys, "latest: is a folder, expected a file")


@pytest.mark.parametrize("name", ["trainer.pt", "policy.safetensors", "policy.yaml"])
def test_a_missing_file_is_named(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints" / STEP / name).unlink()
    assert_refused(run, capsys, name)


@pytest.mark.parametrize("name", ["policy.safetensors", "policy.yaml"])
def test_a_byte_that_was_altered_is_noticed(
    name: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "checkpoints" / STEP / name
    data = bytearray(path.read_bytes())
    place = len(data) - 9 if name.endswith("tensors") else data.index(b"num_envs: 2") + 10
    data[place] ^= 1
    path.write_bytes(data)
    assert_refused(run, capsys, name, "altered")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_forget("optimizer"), "lacks optimizer"),
        (_forget("collector"), "lacks collector"),
        (altered(format="xlstm_rl trainer 9"), "expected 'xlstm_rl trainer 2'"),
        (altered(format=None), "written by version 0.1"),
        (altered(steps_done="many"), "does not fit the policy beside it, or was altered"),
        (altered(optimizer={}), "does not fit the policy beside it, or was altered"),
        (altered(generators={}), "does not fit the policy beside it, or was altered"),
        (altered(recent_episodes=[1]), "does not fit the policy beside it, or was altered"),
        (altered(config={}), "holds no configuration"),
        (altered(config=[]), "holds no configuration"),
        (_other_weights, "of the optimiser has shape"),
        (_other_option, "its configuration is not one of this version"),
    ],
)
def test_a_state_that_does_not_fit_is_one_clear_line(
    change: Callable[[dict[str, Any]], None],
    said: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = run / "checkpoints" / STEP / "trainer.pt"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    assert_refused(run, capsys, "trainer.pt", said)


def test_a_foreign_file_of_weights_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "checkpoints" / STEP / "policy.safetensors"
    save_file({"somebody.elses": torch.zeros(4000)}, path)
    with pytest.raises(CheckpointError, match=r"does not fit policy\.yaml .*somebody\.elses"):
        load_policy(run)
    assert_refused(run, capsys, "policy.safetensors")


def test_another_policys_description_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "checkpoints" / STEP / "policy.yaml"
    found = yaml.safe_load(path.read_text())
    found["memory"]["pattern"] = "s"
    path.write_text(yaml.safe_dump(found))
    assert_refused(run, capsys, "altered")


def test_an_altered_state_of_the_collector_begins_new_episodes(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "checkpoints" / STEP / "trainer.pt"
    state = torch.load(path, weights_only=True)
    for damage in ({"structure": "[]"}, {"structure": "{"}, {"arrays": torch.zeros(3)}, None, 7):
        for part in ("carried", "environments"):
            broken = dict(state["collector"])
            broken[part] = {**broken[part], **damage} if isinstance(damage, dict) else damage
            torch.save({**state, "collector": broken}, path)
            with RecurrentPPO.load(run, run_dir=str(run.parent / "copy")) as agent:
                agent.learn(16)
            said = capsys.readouterr().err
            assert "new episodes begin" in said and said.count("\n") == 1
            shutil.rmtree(run.parent / "copy")


@pytest.mark.parametrize(
    "what", ["finished", "running", "no permission", "no run", "no checkpoint"]
)
def test_a_run_that_cannot_be_resumed_is_one_clear_line(
    what: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if what == "finished":
        with RecurrentPPO.load(run) as agent:
            agent.learn()
        assert_refused(run, capsys, "finished: 64 steps of 64 are done")
    elif what == "running":
        from xlstm_rl.runs.lock import run_locked

        with run_locked(run):
            assert_refused(run, capsys, "is training in it")
    elif what == "no permission":
        (run / "lock").mkdir()  # tests may run as root, whom no permission stops
        assert_refused(run, capsys, "lock cannot be written")
    elif what == "no run":
        (tmp_path / "empty").mkdir()
        assert_refused(tmp_path / "empty", capsys, "not a run folder")
    else:
        shutil.rmtree(run / "checkpoints")
        (run / "latest").unlink()
        assert_refused(run, capsys, "this run has no checkpoint yet")


def test_two_million_parameters_are_saved_and_loaded_within_a_second(tmp_path: Path) -> None:
    agent = RecurrentPPO(
        "CartPole-v1",
        env={"num_envs": 2},
        memory={"kind": "gru", "width": 384},
        policy={"critic": "separate"},
        agent={"rollout_steps": 2, "minibatches": 1, "epochs": 1},
        logger={"kind": "none"},
    )
    assert sum(one.numel() for one in agent.parameters) > 1_700_000
    with agent:
        agent.learn(4)
        times = []
        for attempt in range(3):  # the best of three: others use the machine too
            began = time.perf_counter()
            agent.save(tmp_path / str(attempt))
            load_policy(tmp_path / str(attempt))
            times.append(time.perf_counter() - began)
    assert min(times) < 1.0
