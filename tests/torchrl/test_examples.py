"""The examples with TorchRL run."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from .conftest import torchrl_014

EXAMPLES = Path(__file__).parents[2] / "examples"


def _load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name))


@torchrl_014("has no Collector")
def test_ppo_of_torchrls_parts_makes_updates() -> None:
    example = _load("torchrl_ppo.py")
    steps = example["NUM_ENVS"] * example["STEPS"]
    returns = list(example["train"](2 * steps))
    assert len(returns) == 2
    assert all(5 < one < 100 for one in returns)


@torchrl_014("has no Collector")
@pytest.mark.slow
def test_ppo_of_torchrls_parts_learns_without_velocities() -> None:
    returns = list(_load("torchrl_ppo.py")["train"](150_000))
    assert max(returns) > 300


def test_examples_fit_two_screens() -> None:
    for path in EXAMPLES.glob("torchrl_*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 120
