"""Log-density, entropy and gradients of normals in C, against torch in float64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.gaussian import Spread, equations, number_terms

pytestmark = pytest.mark.skipif(not LOADED, reason="without the C library torch does it")

FREE: Spread = (0.0, -40.0, 40.0)
OF_A_STATE: Spread = (-0.7, -10.0, 3.0)


def draw(*lead: int, numbers: int = 3, wide: float = 1.0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(len(lead) + numbers)
    params = wide * torch.randn(*lead, 2 * numbers, generator=random)
    return params, torch.randn(*lead, numbers, generator=random)


def weigh(terms: Any) -> Tensor:
    log_prob, entropy = terms
    rows = torch.arange(log_prob.numel(), dtype=log_prob.dtype).view(log_prob.shape)
    return ((rows.cos() * log_prob) + (rows.sin() * entropy)).sum()


@pytest.mark.parametrize("spread", [FREE, OF_A_STATE], ids=["free", "state"])
@pytest.mark.parametrize("lead", [(), (5,), (4, 7), (0, 7)], ids=str)
@pytest.mark.parametrize("numbers", [1, 3, 17])
def test_values_and_gradients(lead: tuple[int, ...], numbers: int, spread: Spread) -> None:
    params, action = draw(*lead, numbers=numbers)
    mine, theirs = params.clone().requires_grad_(), params.double().requires_grad_()
    found = number_terms(mine, action, spread)
    assert found is not None
    expected = equations(theirs, action.double(), spread)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == lead
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
    (a,) = torch.autograd.grad(weigh(found), mine)
    (b,) = torch.autograd.grad(weigh(expected), theirs)
    torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spread", [FREE, OF_A_STATE], ids=["free", "state"])
def test_beyond_the_limits_nothing_changes(spread: Spread) -> None:
    shift, least, most = spread
    log_std = torch.tensor([least - 1, least, least + 1, most - 1, most, most + 1]) - shift
    params = torch.cat((torch.zeros(6), log_std)).requires_grad_()
    action = torch.zeros(6)
    found, expected = number_terms(params, action, spread), equations(params, action, spread)
    assert found is not None
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    (a,) = torch.autograd.grad(weigh(found), params)
    (b,) = torch.autograd.grad(weigh(expected), params)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("where", ["mean", "log_std", "action"])
def test_what_is_not_finite_stays_in_its_row(where: str) -> None:
    params, action = draw(4)
    at = {"mean": (params, 1), "log_std": (params, 4), "action": (action, 1)}[where]
    at[0][2, at[1]] = math.nan
    found = number_terms(params.requires_grad_(), action, FREE)
    assert found is not None
    assert found[0].isnan().tolist() == [False, False, True, False]
    (grad,) = torch.autograd.grad(weigh(found), params)
    assert grad.isnan().any(-1).tolist() == [False, False, True, False]


@pytest.mark.parametrize("left_out", [0, 1])
def test_a_term_that_no_loss_touches(left_out: int) -> None:
    params, action = draw(5)
    mine, theirs = params.clone().requires_grad_(), params.clone().requires_grad_()
    found, expected = number_terms(mine, action, FREE), equations(theirs, action, FREE)
    assert found is not None
    for one, terms in ((mine, found), (theirs, expected)):
        terms[1 - left_out].cos().sum().backward()
        assert one.grad is not None
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_second_derivatives() -> None:
    params, action = draw(3)
    curves = []
    for run in (number_terms, equations):
        one = params.clone().requires_grad_()
        found: Any = run(one, action, OF_A_STATE)
        (grad,) = torch.autograd.grad(weigh(found), one, create_graph=True)
        curves.append(torch.autograd.grad(grad.square().sum(), one)[0])
    torch.testing.assert_close(*curves, rtol=1e-4, atol=1e-5)


def test_what_c_cannot_read_is_left_to_torch() -> None:
    params, action = draw(4)
    wanting = params.requires_grad_()
    other = torch.zeros(4, 2)
    assert number_terms(params.detach(), action, FREE) is None  # nobody waits for a gradient
    assert number_terms(wanting, action.clone().requires_grad_(), FREE) is None
    for x, y in (
        (wanting.double(), action.double()),
        (wanting, action.double()),
        (wanting, other),
        (wanting[:, :4], other),
        (wanting.t(), action.t()),
        (wanting[0, :1], action[0, :0]),
    ):
        assert number_terms(x, y, FREE) is None
