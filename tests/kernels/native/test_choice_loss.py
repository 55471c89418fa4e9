"""PPO's loss of choices in one call: to the bit what the calls one after the other give."""

from typing import Any

import pytest
import torch
from torch import Tensor

from xlstm_rl.kernels.native.categorical import MASKED_BELOW, choice_pass
from xlstm_rl.kernels.native.choice_loss import ChoiceLoss, choice_loss
from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.ppo_loss import loss_and_gradients

pytestmark = pytest.mark.skipif(not LOADED, reason="needs the native library")

N, T, CHOICES = 5, 13, 4
OPTIONS = (0.2, 0.5, 0.01, 1e-3, -1.0, True, 0.3)
"""clip, value, entropy and barrier coefficients, no value clip, normalised, least scale."""


def _given(**changes: Any) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(N, T, CHOICES, generator=draw)
    action = torch.randint(CHOICES, (N, T), generator=draw)
    value, *old = (torch.randn(N, T, generator=draw) for _ in range(5))
    given = {"logits": logits, "action": action, "value": value, "old": tuple(old), "valid": None}
    return {**given, "options": OPTIONS, "wants_barrier": True, **changes}


def _one_after_the_other(
    logits: Tensor, action: Tensor, value: Tensor, wants_barrier: bool, **others: Any
) -> ChoiceLoss:
    found = choice_pass(logits, action, wants_barrier)
    assert found is not None
    log_prob, entropy, barrier = found.terms
    done = loss_and_gradients((log_prob, entropy, value, barrier), **others)
    assert done is not None
    loss, parts, (dlog_prob, dentropy, dvalue, dbarrier) = done
    return ChoiceLoss(loss, parts, found.backward(dlog_prob, dentropy, dbarrier), dvalue)


def _masked() -> Tensor:
    logits: Tensor = _given()["logits"].clone()
    logits[1, 3, 2] = logits[:, 7, 0] = 2 * MASKED_BELOW
    return logits


def _broken() -> Tensor:
    logits: Tensor = _given()["logits"].clone()
    logits[2, 5, 1] = torch.nan
    return logits


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"wants_barrier": False, "options": (*OPTIONS[:3], 0.0, *OPTIONS[4:])},
        {"valid": torch.rand(N, T, generator=torch.Generator().manual_seed(1)) < 0.7},
        {"options": (0.1, 1.0, 0.0, 0.1, 0.2, False, 0.0)},
        {"logits": _masked()},
        {"logits": _broken()},
        {"logits": 200.0 * _given()["logits"]},
        {"logits": torch.zeros(N, T, 1), "action": torch.zeros(N, T, dtype=torch.int64)},
    ],
    ids=["all", "no barrier", "valid", "value clip", "masked", "nan", "certain", "one choice"],
)
def test_it_is_what_the_calls_one_after_the_other_give(changes: dict[str, Any]) -> None:
    given = _given(**changes)
    found, expected = choice_loss(**given), _one_after_the_other(**given)
    assert found is not None
    assert found.parts.keys() == expected.parts.keys()
    torch.testing.assert_close(tuple(found), tuple(expected), rtol=0, atol=0, equal_nan=True)


def test_a_loss_keeps_its_numbers_when_the_next_one_is_made() -> None:
    first = choice_loss(**_given())
    assert first is not None
    before = [x.clone() for x in (first.loss, first.dlogits, first.dvalue, *first.parts.values())]
    choice_loss(**_given(logits=_masked(), value=torch.zeros(N, T)))
    after = [first.loss, first.dlogits, first.dvalue, *first.parts.values()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"action": torch.full((N, T), CHOICES)},
        {"action": torch.full((N, T), -1)},
        {"action": torch.zeros(N, T)},
        {"action": torch.zeros(T, N, dtype=torch.int64)},
        {"logits": torch.zeros(N, T, CHOICES, dtype=torch.float64)},
        {"logits": torch.zeros(N, CHOICES, T).mT},
        {"logits": torch.zeros(N, T, 0)},
        {"value": torch.zeros(N, T, 1)},
        {"valid": torch.ones(N, T)},
        {"old": (*_given()["old"][:3], torch.zeros(N, T, dtype=torch.float64))},
    ],
    ids=lambda changes: f"{next(iter(changes))}",
)
def test_what_it_does_not_take_is_left_to_torch(changes: dict[str, Any]) -> None:
    assert choice_loss(**_given(**changes)) is None
