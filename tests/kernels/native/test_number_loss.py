"""PPO's loss of numbers in one call: to the bit what a graph gives."""

from typing import Any

import pytest
import torch
from torch import Tensor

from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.gaussian import number_terms
from xlstm_rl.kernels.native.number_loss import placed_number_loss
from xlstm_rl.kernels.native.ppo_loss import PlacedLoss, clipped_loss, run_once

pytestmark = pytest.mark.skipif(not LOADED, reason="needs the native library")

N, T = 4, 9
OPTIONS = (0.2, 0.5, 0.01, 0.0, -1.0, True, 0.3)
"""clip, value, entropy and barrier coefficients, no value clip, normalised, least scale."""
SPREAD = (0.1, -1.0, 1.5)


def _given(numbers: int, free: bool, **changes: Any) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(numbers)
    outputs = torch.randn(N, T, numbers if free else 2 * numbers, generator=draw)
    log_std = torch.randn(numbers, generator=draw) if free else None
    action = torch.randn(N, T, numbers, generator=draw)
    value, *old = (torch.randn(N, T, generator=draw) for _ in range(5))
    given = {"outputs": outputs, "log_std": log_std, "action": action, "value": value}
    given |= {"old": tuple(old), "valid": None, "options": OPTIONS, "spread": SPREAD}
    return {**given, **changes}


def _run(placed: PlacedLoss | None) -> PlacedLoss:
    assert placed is not None and run_once(placed) is not None
    return placed


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("numbers", [1, 3, 17])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"valid": torch.rand(N, T, generator=torch.Generator().manual_seed(1)) < 0.7},
        {"options": (0.1, 1.0, 0.0, 0.0, 0.2, False, 0.0), "spread": (0.0, -20.0, 2.0)},
    ],
    ids=["plain", "some steps", "value clip"],
)
@pytest.mark.each_value
def test_the_bits_are_those_of_a_graph(changes: dict[str, Any], numbers: int, free: bool) -> None:
    given = _given(numbers, free, **changes)
    placed = _run(placed_number_loss(**given))
    outputs, log_std, size = given["outputs"], given["log_std"], given["outputs"].shape[-1]
    params = outputs
    if log_std is not None:
        params = torch.cat((outputs, log_std.expand(N, T, -1)), -1)
    params, value = (one.clone().requires_grad_() for one in (params, given["value"]))
    terms = number_terms(params, given["action"], given["spread"])
    assert terms is not None
    done = clipped_loss((*terms, value, None), given["old"], given["valid"], given["options"])
    assert done is not None
    loss, parts = done
    loss.backward()
    assert params.grad is not None
    assert torch.tensor([*placed.parts])[:-1].equal(torch.stack([loss.detach(), *parts.values()]))
    assert not placed.has_barrier and placed.parts[-1] == 0
    assert torch.equal(placed.doutputs, params.grad[..., :size])
    assert value.grad is not None and torch.equal(placed.dvalue, value.grad)
    if free:
        assert placed.dlog_std is not None
        assert torch.equal(placed.dlog_std, params.grad[..., numbers:])
    else:
        assert placed.dlog_std is None


def test_it_reads_where_its_tensors_are_now() -> None:
    given = _given(3, True)
    placed = _run(placed_number_loss(**given))
    before = placed.doutputs.clone()
    given["log_std"] += 0.5
    given["outputs"] -= 0.25
    _run(placed)
    anew = _run(placed_number_loss(**given))
    assert not torch.equal(placed.doutputs, before)
    assert torch.equal(placed.doutputs, anew.doutputs)


def _wide(x: Tensor) -> Tensor:
    return x.double()


@pytest.mark.parametrize(
    "name, change",
    [
        ("outputs", _wide),
        ("outputs", lambda x: x[..., :2]),
        ("log_std", lambda x: x[:2]),
        ("action", _wide),
        ("action", lambda x: x.transpose(0, 1)),
        ("value", lambda x: x[:, :3]),
        ("old", lambda x: (*x[:3], x[3].double())),
    ],
)
def test_what_c_cannot_read_is_torchs(name: str, change: Any) -> None:
    given = _given(3, True)
    assert placed_number_loss(**given) is not None
    assert placed_number_loss(**{**given, name: change(given[name])}) is None
    assert placed_number_loss(**{**given, "valid": torch.ones(N, T)}) is None
