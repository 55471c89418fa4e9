"""Whose threads learn: those of C where the network runs there, else torch's and C's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from xlstm_rl import RecurrentPPO
from xlstm_rl.kernels.native import library
from xlstm_rl.kernels.native.choose import LOADED

pytestmark = pytest.mark.skipif(not LOADED, reason="needs the native library")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _seen(threads: int, memory: dict[str, Any], **policy: Any) -> tuple[int, int]:
    """Threads of torch and of C during an update."""
    agent = RecurrentPPO(
        "CartPole-v1",
        threads=threads,
        env={"num_envs": 2},
        memory={"width": 16, **memory},
        policy={"head_width": 8, **policy},
        agent={"rollout_steps": 16, "epochs": 1, "minibatches": 1},
        logger={"kind": "none"},
    )
    found: list[tuple[int, int]] = []
    update = agent.update

    def watched(*args: Any) -> Any:
        found.append((torch.get_num_threads(), library.num_threads()))
        return update(*args)

    agent.update = watched  # type: ignore[method-assign]
    agent.learn(32)
    return found[0]


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize(
    "memory",
    [{"num_heads": 2}, {"pattern": "s", "num_heads": 2}, {"kind": "lstm"}, {"kind": "gru"}],
)
def test_where_all_runs_in_c_torch_has_one(memory: dict[str, Any], critic: str) -> None:
    assert _seen(3, memory, critic=critic) == (1, 3)
    assert _seen(1, memory, critic=critic) == (1, 1)


@pytest.mark.parametrize(
    "memory",
    [
        {"num_heads": 2, "backend": "torch"},
        {"num_heads": 2, "input_gate": "sigmoid"},
        {"kind": "mingru"},
        {"kind": "mlp"},
    ],
)
def test_what_runs_in_torch_has_torchs_threads(memory: dict[str, Any]) -> None:
    assert _seen(3, memory) == (3, 3)


def test_layers_that_c_does_not_know_have_torchs_threads() -> None:
    assert _seen(3, {"num_heads": 2}, activation="silu") == (3, 3)
    assert _seen(3, {"num_heads": 2}, activation="relu") == (1, 3)


def test_each_python_thread_asks_for_its_own() -> None:
    torch.set_num_threads(2)
    found: list[int] = []
    with library.native_threads(5):
        other = threading.Thread(target=lambda: found.append(library.num_threads()))
        other.start()
        other.join()
        assert library.num_threads() == 5
    assert found[0] != 5


def test_0_leaves_the_number_to_torch() -> None:
    torch.set_num_threads(2)
    assert _seen(0, {"num_heads": 2}) == (1, 2)
    assert _seen(0, {"kind": "mlp"}) == (2, 2)


def test_afterwards_all_is_as_before_behind_an_error_too() -> None:
    torch.set_num_threads(2)
    with pytest.raises(ValueError, match="inside"), library.native_threads(5):
        assert library.num_threads() == 5
        raise ValueError("inside")
    _seen(3, {"num_heads": 2})
    assert (torch.get_num_threads(), library.num_threads()) == (2, 2)
