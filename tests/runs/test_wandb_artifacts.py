"""Policies that are fetched from W&B, with a stand-in for its server."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import wandb

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.cli import main
from xlstm_rl.config import ConfigError
from xlstm_rl.errors import CheckpointError
from xlstm_rl.runs.loggers import wandb_artifacts

pytestmark = pytest.mark.usefixtures("no_wandb_account")

TINY: dict[str, Any] = {
    "env": {"num_envs": 2},
    "memory": {"width": 8, "num_heads": 2},
    "agent": {"rollout_steps": 8, "epochs": 1, "minibatches": 1},
}


def test_a_policy_is_loaded_from_an_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = RecurrentPPO("CartPole-v1", **TINY, logger={"kind": "none"})
    run = agent.save(tmp_path / "run")
    asked: list[str] = []

    class Artifact:
        version = "v3"

        def download(self, root: str) -> str:
            checkpoint = next((run / "checkpoints").iterdir())
            return str(shutil.copytree(checkpoint, root, dirs_exist_ok=True))

    class Api:
        def artifact(self, name: str) -> Artifact:
            asked.append(name)
            if name.endswith("missing:latest"):
                raise ValueError("Unable to fetch artifact with name\ne/p/missing:latest")
            return Artifact()

    monkeypatch.setattr(wandb, "Api", Api)
    with pytest.raises(CheckpointError, match="no API key; run `wandb login`"):
        load_policy("wandb:e/p/policy-abc:best")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    policy = load_policy("wandb:e/p/policy-abc:best")
    assert asked == ["e/p/policy-abc:best"]
    own = agent.policy.state_dict()
    assert all((value == own[key]).all() for key, value in policy.state_dict().items())
    home = tmp_path / "home"
    assert list(home.rglob("e/p/policy-abc-v3/policy.safetensors"))
    shutil.rmtree(home)
    assert main(["eval", "wandb:e/p/policy-abc", "--episodes", "2"]) == 0
    assert asked[-1] == "e/p/policy-abc:latest"
    capsys.readouterr()
    with pytest.raises(ConfigError, match="give run_dir"):
        RecurrentPPO.load("wandb:e/p/policy-abc")
    more = tmp_path / "more"
    words = ["resume", "wandb:e/p/policy-abc", "--run-dir", str(more), "--total-steps", "16"]
    assert main(words) == 0
    assert load_policy(more)
    capsys.readouterr()
    for reference, part in (
        ("wandb:e/p/missing", "cannot be fetched: Unable to fetch artifact with name e/p/missing"),
        ("wandb:missing", "expected wandb:entity/project/artifact:alias"),
    ):
        assert main(["eval", reference]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and part in error


@pytest.mark.parametrize("reference", ["wandb:a/b", "wandb:a/b/c/d", "wandb:a/../c", "wandb:"])
def test_a_reference_that_is_none_is_refused(reference: str) -> None:
    with pytest.raises(CheckpointError, match="expected wandb:entity/project/artifact:alias"):
        wandb_artifacts.fetch_artifact(reference)
