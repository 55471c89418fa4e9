import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from xlstm_rl import Callback, RecurrentPPO, load_policy
from xlstm_rl.cli import main
from xlstm_rl.config import ConfigError
from xlstm_rl.errors import CheckpointError
from xlstm_rl.runs.plotting import plot_runs


def test_a_loaded_policy_acts_as_the_saved_one(trained: RecurrentPPO, run: Path) -> None:
    loaded = load_policy(run)
    rng, states = np.random.default_rng(0), [None, None]
    for _ in range(20):
        obs = rng.normal(size=(8, 2)).astype(np.float32)
        actions = []
        for n, policy in enumerate((trained.policy, loaded)):
            action, states[n] = policy.act(obs, states[n])
            actions.append(action)
        np.testing.assert_array_equal(*actions)
    assert (states[0] == states[1]).all()
    assert loaded.observation_space == trained.policy.observation_space
    assert loaded.env_config == trained.config.env


def test_a_run_folder_and_its_checkpoint_load_alike(run: Path) -> None:
    for a, b in zip(
        load_policy(run).parameters(),
        load_policy(run / "checkpoints" / "64").parameters(),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_loading_leaves_the_users_random_numbers_alone(run: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_policy(run)
    assert torch.equal(torch.rand(4), expected)


def test_the_trainers_state_needs_no_pickle(run: Path, trained: RecurrentPPO) -> None:
    state = torch.load(run / "checkpoints" / "64" / "trainer.pt", weights_only=True)
    assert state["steps_done"] == 64
    saved = state["optimizer"]["state"]
    assert len(saved) == len(trained.parameters)
    assert saved[0]["step"].item() == 4 * 2  # epochs x updates


def test_a_damaged_weight_file_is_one_clear_line(run: Path) -> None:
    path = run / "checkpoints" / "64" / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"policy\.safetensors cannot be read") as caught:
        load_policy(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("checkpoint", ["latest", 64])
def test_one_altered_bit_of_the_weights_is_one_clear_line(
    run: Path, checkpoint: str | int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "checkpoints" / "64" / "policy.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"policy\.safetensors: is not the file") as caught:
        load_policy(run, checkpoint)
    assert "\n" not in str(caught.value)
    assert main(["eval", str(run), "--episodes", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("xlstm-rl eval: ") and "altered or damaged" in line


@pytest.mark.parametrize("alone", [False, True])
def test_a_policy_without_a_hash_or_a_trainers_state_loads(run: Path, alone: bool) -> None:
    folder = run / "checkpoints" / "64"
    if alone:
        (folder / "trainer.pt").unlink()
    else:  # of an older version, or altered on purpose
        found = yaml.safe_load((folder / "policy.yaml").read_text())
        del found["sha256"]
        (folder / "policy.yaml").write_text(yaml.safe_dump(found))
    load_policy(run)


def test_weights_of_another_network_are_refused(
    sections: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    other = RecurrentPPO(
        "xlstm_rl/CartPoleNoVel-v1", **{**sections, "memory": {"pattern": "m", "width": 32}}
    ).save(tmp_path / "other")
    target = run / "checkpoints" / "64" / "policy.safetensors"
    target.write_bytes((other / "checkpoints" / "0" / "policy.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"does not fit policy\.yaml.*missing \['network"):
        load_policy(run)


@pytest.mark.parametrize("text", ["", "- 1\n", "format: other\n", "format: [\n"])
def test_a_foreign_policy_file_is_refused(run: Path, text: str) -> None:
    (run / "checkpoints" / "64" / "policy.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"policy\.yaml") as caught:
        load_policy(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["choice", "torque"])
def test_a_policy_saved_before_the_spaces_grew_acts_as_it_did(name: str) -> None:
    folder = Path(__file__).parent / "data" / "saved_by_0.1.0" / name
    policy, state = load_policy(folder), None
    rng = np.random.default_rng(0)
    size = policy.observation_space.shape[0]
    for t, expected in enumerate(json.loads((folder / "actions.json").read_text())):
        obs = rng.normal(size=(2, size)).astype(np.float32)
        action, state = policy.act(obs, state, t == 3)
        np.testing.assert_allclose(action, expected, atol=1e-5)


def test_a_misspelt_key_in_the_policy_file_is_named(run: Path) -> None:
    path = run / "checkpoints" / "64" / "policy.yaml"
    found = yaml.safe_load(path.read_text())
    found["memory"]["widht"] = found["memory"].pop("width")
    path.write_text(yaml.safe_dump(found))
    with pytest.raises(CheckpointError, match="widht"):
        load_policy(run)


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing-here"):
        load_policy(tmp_path / "nothing-here")


def test_saving_over_something_else_is_refused(trained: RecurrentPPO, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="not empty"):
        trained.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_an_agent_may_save_into_its_own_folder_again(
    sections: dict[str, Any], tmp_path: Path
) -> None:
    agent = RecurrentPPO("xlstm_rl/CartPoleNoVel-v1", **sections).learn(64)
    folder = agent.save(tmp_path / "mine")
    agent.learn(32)
    assert agent.save(tmp_path / "mine") == folder
    assert (folder / "latest").read_text().strip() == "96"


def test_a_step_that_nothing_changed_at_is_not_written_again(
    sections: dict[str, Any], tmp_path: Path
) -> None:
    agent = RecurrentPPO(
        "xlstm_rl/CartPoleNoVel-v1",
        run_dir=str(tmp_path / "run"),
        checkpoint={"every_steps": 32},
        **sections,
    )
    checkpoint = tmp_path / "run" / "checkpoints" / "64"
    seen: list[int] = []

    class Look(Callback):
        def on_training_end(self) -> None:
            seen.append(checkpoint.stat().st_ino)

    agent.learn(64, callbacks=Look())  # the last rollout crosses every_steps
    agent.save(tmp_path / "run")
    assert checkpoint.stat().st_ino == seen[0]
    with torch.no_grad():
        agent.parameters[0].add_(1.0)
    agent.save(tmp_path / "run")
    assert checkpoint.stat().st_ino != seen[0]
    saved = load_policy(tmp_path / "run").network.parameters()
    assert torch.equal(next(saved), agent.parameters[0])


def test_a_tilde_is_the_users_home(
    sections: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    agent = RecurrentPPO(
        "xlstm_rl/CartPoleNoVel-v1",
        run_dir="~/runs/a",
        **{**sections, "logger": {"kind": "csv"}},
    )
    with agent:
        agent.learn(480)
    for folder in ("~/runs/b", "~/runs/b", Path("~/runs/a")):
        assert agent.save(folder).is_relative_to(tmp_path)
    assert agent.run_dir == tmp_path / "runs" / "a"
    load_policy("~/runs/b/checkpoints/480")
    assert plot_runs(["~/runs/a"], "~/curve.svg") == tmp_path / "curve.svg"
    assert not Path("~").exists()


def test_old_checkpoints_are_pruned_and_the_latest_stays(
    sections: dict[str, Any], tmp_path: Path
) -> None:
    agent = RecurrentPPO(
        "xlstm_rl/CartPoleNoVel-v1",
        run_dir=str(tmp_path / "run"),
        checkpoint={"every_steps": 32, "keep": 2},
        **{**sections, "logger": {"kind": "csv"}},
    ).learn(160)
    assert agent.run_dir is not None
    kept = sorted(int(path.name) for path in (agent.run_dir / "checkpoints").iterdir())
    assert kept == [128, 160]
    assert (agent.run_dir / "latest").read_text().strip() == "160"
