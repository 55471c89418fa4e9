"""A small agent, trained for a moment and saved."""

from pathlib import Path
from typing import Any

import pytest

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
