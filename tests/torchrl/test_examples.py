"""The examples with TorchRL run."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

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
    example = _load("torchrl_ppo.py")
    steps = example["NUM_ENVS"] * example["STEPS"]
    returns = list(example["train"](73 * steps))
    assert max(returns) > 300


@torchrl_014("has no Collector")
@pytest.mark.parametrize(
    "task", ["MemoryChain", pytest.param("RepeatPrevious", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_dqn_makes_updates(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    example = _load("torchrl_dqn.py")
    train = example["train"]
    monkeypatch.setitem(train.__globals__, "UPDATES", 2)
    found = list(train(task, 12 * example["NUM_ENVS"] * example["STEPS"]))
    assert found
    assert all(-1 <= one <= 1 for one in found)


@torchrl_014("has no Collector")
def test_the_errors_of_dqn_are_those_of_its_definition() -> None:
    errors = _load("torchrl_dqn.py")["td_errors"]
    gamma = errors.__globals__["GAMMA"]
    values = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [5.0, 4.0]]])
    slow = torch.tensor([[[0.0, 0.0], [7.0, 8.0], [0.5, 0.25]]])

    def network(found: torch.Tensor) -> Any:
        return lambda batch: batch.set("action_value", found)

    action = torch.nn.functional.one_hot(torch.tensor([[1, 0, 0]]), 2)
    for over in (False, True):
        after = {
            "reward": torch.tensor([[[0.1], [0.2], [0.3]]]),
            "terminated": torch.tensor([[[False], [False], [over]]]),
        }
        batch = TensorDict({"action": action, "next": after}, batch_size=[1, 3])
        found = errors(batch, network(values), network(slow))
        last = 0.3 - 5.0 if over else 0.0  # the slice does not hold what comes after
        expected = [0.1 + gamma * 7.0 - 2.0, 0.2 + gamma * 0.5 - 3.0, last]
        torch.testing.assert_close(found, torch.tensor([expected]).unsqueeze(-1))


@torchrl_014("has no Collector")
@pytest.mark.parametrize(
    ("task", "steps"),
    [pytest.param("MemoryChain", 33, marks=pytest.mark.slow), ("RepeatPrevious", 51)],
)
@pytest.mark.slow
def test_sac_makes_updates(task: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    example = _load("torchrl_sac.py")
    train = example["train"]
    monkeypatch.setitem(train.__globals__, "UPDATES", 2)
    found = list(train(task, 12 * example["NUM_ENVS"] * steps))
    assert len(found) == 12
    assert all(-1 <= one <= 1 for one in found)


@torchrl_014("has no Collector")
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_dqn_and_sac_recall_the_first_step(seed: int) -> None:
    dqn = list(_load("torchrl_dqn.py")["train"]("MemoryChain", 51_200, seed))
    assert sum(dqn[-20:]) / 20 > 0.8
    sac = list(_load("torchrl_sac.py")["train"]("MemoryChain", 26_400, seed))
    assert sum(sac[-20:]) / 20 > 0.8


def test_examples_fit_two_screens() -> None:
    for path in EXAMPLES.glob("torchrl_*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 120
