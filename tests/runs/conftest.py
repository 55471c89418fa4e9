"""A small agent, trained for a moment and saved."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from xlstm_rl import RecurrentPPO

SECTIONS: dict[str, Any] = {
    "env": {"num_envs": 2},
    "memory": {"pattern": "ms", "width": 16, "num_heads": 2},
    "agent": {"rollout_steps": 16, "epochs": 4, "minibatches": 1},
    "logger": {"kind": "none"},
}


@pytest.fixture
def sections() -> dict[str, Any]:
    """The sections of that agent's configuration."""
    return SECTIONS


@pytest.fixture(scope="module")
def trained() -> RecurrentPPO:
    return RecurrentPPO("xlstm_rl/CartPoleNoVel-v1", **SECTIONS).learn(64)


@pytest.fixture
def run(trained: RecurrentPPO, tmp_path: Path) -> Path:
    return trained.save(tmp_path / "run")


@pytest.fixture
def no_wandb_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """W&B without a key, variables and files of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home))
    yield
    while wandb.run is not None:
        wandb.finish()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty run folder."""
    path = tmp_path / "run"
    path.mkdir()
    return path
