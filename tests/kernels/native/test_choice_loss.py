"""PPO's loss of choices in one call: to the bit what a graph gives."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from xlstm_rl.kernels.native.categorical import (
    MASKED_BELOW,
    choice_terms,
    equations,
    mean_equations,
)
from xlstm_rl.kernels.native.choice_loss import placed_choice_loss
from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.ppo_loss import clipped_loss, run_once
from xlstm_rl.policy.actions.categorical import LEAST_LOGIT, MASKED_LOGIT

pytestmark = pytest.mark.skipif(not LOADED, reason="needs the native library")

N, T, CHOICES = 5, 13, 4
OPTIONS = (0.2, 0.5, 0.01, 1e-3, -1.0, True, 0.3)
"""clip, value, entropy and barrier coefficients, no value clip, normalised, least scale."""


def _given(**changes: Any) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(N, T, CHOICES, generator=draw)
    action = torch.randint(CHOICES, (N, T), generator=draw)
    value, *old = (torch.randn(N, T, generator=draw) for _ in range(5))
    given = {"outputs": outputs, "action": action, "value": value, "old": tuple(old), "valid": None}
    return {**given, "options": OPTIONS, "wants_barrier": True, **changes}


class Made(NamedTuple):
    loss: Tensor
    parts: dict[str, Tensor]
    doutputs: Tensor
    dvalue: Tensor


def _in_one_call(**given: Any) -> Made | None:
    placed = placed_choice_loss(**given)
    found = None if placed is None else run_once(placed)
    if placed is None or found is None:
        return None
    return Made(*found, placed.doutputs, placed.dvalue)


def _in_a_graph(
    outputs: Tensor,
    action: Tensor,
    value: Tensor,
    wants_barrier: bool,
    counts: Any = None,
    mask: Tensor | None = None,
    **others: Any,
) -> Made:
    outputs, value = (one.clone().requires_grad_() for one in (outputs, value))
    logits = outputs
    if mask is not None:
        logits = logits.clamp(min=LEAST_LOGIT).masked_fill(~mask, MASKED_LOGIT)
    terms = choice_terms(logits, action, wants_barrier, counts)
    assert terms is not None
    log_prob, entropy, barrier = terms
    done = clipped_loss((log_prob, entropy, value, barrier), **others)
    assert done is not None
    done[0].backward()
    assert outputs.grad is not None and value.grad is not None
    return Made(done[0].detach(), done[1], outputs.grad, value.grad)


def _mask(n: int, *lead: int) -> Tensor:
    draw = torch.Generator().manual_seed(n)
    mask = torch.rand(*lead, n, generator=draw) < 0.6
    mask[..., 0] = True
    return mask


def _several(counts: tuple[int, ...], **changes: Any) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(len(counts))
    outputs = torch.randn(N, T, sum(counts), generator=draw)
    each = [torch.randint(n, (N, T), generator=draw) for n in counts]
    return {"outputs": outputs, "action": torch.stack(each, -1), "counts": counts, **changes}


def _low() -> Tensor:
    outputs: Tensor = _given()["outputs"].clone()
    outputs[0, 0, 1] = outputs[:, 2, 3] = 2 * LEAST_LOGIT
    return outputs


def _masked() -> Tensor:
    logits: Tensor = _given()["outputs"].clone()
    logits[1, 3, 2] = logits[:, 7, 0] = 2 * MASKED_BELOW
    return logits


def _broken() -> Tensor:
    logits: Tensor = _given()["outputs"].clone()
    logits[2, 5, 1] = torch.nan
    return logits


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"wants_barrier": False, "options": (*OPTIONS[:3], 0.0, *OPTIONS[4:])},
        {"valid": torch.rand(N, T, generator=torch.Generator().manual_seed(1)) < 0.7},
        {"options": (0.1, 1.0, 0.0, 0.1, 0.2, False, 0.0)},
        {"outputs": _masked()},
        {"outputs": _broken()},
        {"outputs": 200.0 * _given()["outputs"]},
        {"outputs": torch.zeros(N, T, 1), "action": torch.zeros(N, T, dtype=torch.int64)},
    ],
    ids=["all", "no barrier", "valid", "value clip", "masked", "nan", "certain", "one choice"],
)
def test_it_is_what_a_graph_gives(changes: dict[str, Any]) -> None:
    given = _given(**changes)
    found, expected = _in_one_call(**given), _in_a_graph(**given)
    assert found is not None
    assert found.parts.keys() == expected.parts.keys()
    torch.testing.assert_close(tuple(found), tuple(expected), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"mask": _mask(CHOICES, N, T)},
        {"mask": _mask(CHOICES, N, T), "outputs": _low()},
        {"mask": _mask(CHOICES, N, T), "outputs": _broken(), "wants_barrier": False},
        _several((3, 3)),
        _several((2, 5, 1), wants_barrier=False),
        _several((2,) * 9, mask=_mask(18, N, T)),
        _several((4, 1, 3), mask=_mask(8, N, T) | (torch.arange(8) == 4) | (torch.arange(8) == 5)),
    ],
    ids=["mask", "low logits", "nan", "two", "three", "bits, mask", "three, mask"],
)
def test_so_it_is_of_masks_and_of_several_numbers(changes: dict[str, Any]) -> None:
    test_it_is_what_a_graph_gives(changes)


def test_of_several_numbers_terms_and_gradients_are_sums() -> None:
    given = _several((2, 5, 1))
    outputs, action, counts = (given[name] for name in ("outputs", "action", "counts"))
    both = []
    for together in (True, False):
        x = outputs.clone().requires_grad_()
        if together:
            terms: Any = choice_terms(x, action, True, counts)
        else:
            parts = zip(x.split(counts, -1), action.unbind(-1), strict=True)
            each = [(*equations(own, chosen), mean_equations(own)) for own, chosen in parts]
            terms = tuple(sum(one) for one in zip(*each, strict=True))
        (grad,) = torch.autograd.grad(sum(one.sin().sum() for one in terms), x, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), x)
        both.append((*terms, grad, second))
    for mine, theirs in zip(*both, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_loss_keeps_its_numbers_when_the_next_one_is_made() -> None:
    first = _in_one_call(**_given())
    assert first is not None
    before = [x.clone() for x in (first.loss, first.doutputs, first.dvalue, *first.parts.values())]
    _in_one_call(**_given(outputs=_masked(), value=torch.zeros(N, T)))
    after = [first.loss, first.doutputs, first.dvalue, *first.parts.values()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"action": torch.full((N, T), CHOICES)},
        {"action": torch.full((N, T), -1)},
        {"action": torch.zeros(N, T)},
        {"action": torch.zeros(T, N, dtype=torch.int64)},
        {"outputs": torch.zeros(N, T, CHOICES, dtype=torch.float64)},
        {"outputs": torch.zeros(N, CHOICES, T).mT},
        {"outputs": torch.zeros(N, T, 0)},
        {"value": torch.zeros(N, T, 1)},
        {"valid": torch.ones(N, T)},
        {"mask": torch.ones(N, T, CHOICES)},
        {"mask": torch.ones(N, T, CHOICES - 1, dtype=torch.bool)},
        {"counts": (CHOICES,)},
        {"counts": (2, 3), "action": torch.zeros(N, T, 2, dtype=torch.int64)},
        {"counts": (2, 2), "action": torch.full((N, T, 2), 2)},
        {"old": (*_given()["old"][:3], torch.zeros(N, T, dtype=torch.float64))},
    ],
    ids=lambda changes: f"{next(iter(changes))}",
)
def test_what_it_does_not_take_is_left_to_torch(changes: dict[str, Any]) -> None:
    assert _in_one_call(**_given(**changes)) is None
