"""Cells without a part are what the paper's equations say without it, unstabilised in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xlstm_rl.kernels import ablated

B, T, H, K, D = 2, 11, 2, 3, 4
CASES = [("sigmoid", True), ("sigmoid", False), ("exponential", False)]
State = tuple[Tensor, ...]


def _reset() -> Tensor:
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[0, 5] = reset[1, 0] = True
    return reset


def _draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def _gates(
    i: Tensor, f: Tensor, input_gate: str, forget_gate: str = "sigmoid"
) -> tuple[Tensor, Tensor]:
    return tuple(  # type: ignore[return-value]
        x.sigmoid() if gate == "sigmoid" else x.exp()
        for x, gate in ((i, input_gate), (f, forget_gate))
    )


def _mlstm(
    inputs: list[Tensor],
    reset: Tensor,
    C: Tensor,
    input_gate: str,
    norm: bool,
    forget_gate: str = "sigmoid",
) -> Tensor:
    """Equations 19 to 27 of Beck et al. 2024, as they stand."""
    q, k, v, i_raw, f_raw = inputs
    outputs, n = [], torch.zeros(B, H, K, dtype=torch.float64)
    for t in range(T):
        i, f = _gates(i_raw[:, t], f_raw[:, t], input_gate, forget_gate)
        f = f * ~reset[:, t, None]
        C = f[..., None, None] * C + i[..., None, None] * torch.einsum(
            "bhk,bhv->bhkv", k[:, t], v[:, t]
        )
        n = f[..., None] * n + i[..., None] * k[:, t]
        query = q[:, t] / K**0.5
        h = torch.einsum("bhk,bhkv->bhv", query, C)
        if norm:
            h = h / (query * n).sum(-1, keepdim=True).abs().clamp(min=1.0)
        outputs.append(h)
    return torch.stack(outputs, 1)


def _mlstm_inputs() -> list[Tensor]:
    return _draw((B, T, H, K), (B, T, H, K), (B, T, H, D), (B, T, H), (B, T, H))


def _assert_equal_with_gradients(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(found)
    of_found = torch.autograd.grad((found * weights).sum(), inputs)
    of_expected = torch.autograd.grad((expected * weights).sum(), inputs)
    for one, other in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", ["reference", "torch", "auto"])
@pytest.mark.parametrize(("input_gate", "normalizer"), CASES)
def test_an_mlstm_and_its_gradients(input_gate: str, normalizer: bool, backend: str) -> None:
    inputs, reset = _mlstm_inputs(), _reset()
    C = torch.zeros(B, H, K, D, dtype=torch.float64)
    expected = _mlstm(inputs, reset, C, input_gate, normalizer)
    options = ("sigmoid", input_gate, normalizer, backend)
    found, _ = ablated.mlstm(*inputs, reset, None, 4, *options)
    _assert_equal_with_gradients(found, expected, inputs)


@pytest.mark.parametrize("input_gate", ["sigmoid", "exponential"])
def test_an_mlstm_without_normalizer_goes_on_from_its_state(input_gate: str) -> None:
    inputs, reset = _mlstm_inputs(), _reset()
    (C,) = _draw((B, H, K, D))
    expected = _mlstm(inputs, reset, C, input_gate, False)
    found, _ = ablated.mlstm(*inputs, reset, (C,), 4, "sigmoid", input_gate, False, "auto")
    _assert_equal_with_gradients(found, expected, [*inputs, C])


@pytest.mark.parametrize("size", [1.0, 200.0])
def test_an_exponential_forget_gate_may_grow_what_was_written_small(size: float) -> None:
    inputs, reset = _mlstm_inputs(), torch.zeros(B, T, dtype=torch.bool)
    reset[:, 5] = True
    with torch.no_grad():  # exp(200) to the sixth leaves float64; an episode has three of them
        inputs[3] -= 3 * size
        inputs[4][:, [2, 3, 4, 6, 7, 8]] = size
    C = torch.zeros(B, H, K, D, dtype=torch.float64)
    expected = _mlstm(inputs, reset, C, "exponential", False, "exponential")
    options = (4, "exponential", "exponential", False, "auto")
    found, _ = ablated.mlstm(*inputs, reset, None, *options)
    _assert_equal_with_gradients(found, expected, inputs)


def test_an_overflow_of_the_forget_gate_reaches_no_gradient_behind_the_reset() -> None:
    inputs, reset = _mlstm_inputs(), torch.zeros(B, T, dtype=torch.bool)
    reset[:, 7] = True
    options = (4, "exponential", "exponential", False, "auto")
    results = []
    for forget in (1.0, 500.0):
        with torch.no_grad():
            inputs[4][:, :7] = forget
        h, _ = ablated.mlstm(*inputs, reset, None, *options)
        gradients = torch.autograd.grad(h[:, 7:].square().sum(), inputs)
        results.append([h[:, 7:], *(one[:, 7:] for one in gradients)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def _slstm(inputs: list[Tensor], reset: Tensor, input_gate: str, norm: bool) -> Tensor:
    """Equations 8 to 14; without normaliser the output is an LSTM's (equation 5)."""
    x, R, b = inputs
    outputs, h, c, n = [], *torch.zeros(3, B, H, D, dtype=torch.float64)
    for t in range(T):
        keep = ~reset[:, t, None, None]
        h, c, n = h * keep, c * keep, n * keep
        raw = x[:, t] + torch.einsum("bhd,ghde->bghe", h, R) + b
        i, f = _gates(raw[:, 0], raw[:, 1], input_gate)
        c, n = f * c + i * raw[:, 2].tanh(), f * n + i
        h = raw[:, 3].sigmoid() * (c / n if norm else c.tanh())
        outputs.append(h)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize(("input_gate", "normalizer"), CASES)
def test_an_slstm_and_its_gradients(input_gate: str, normalizer: bool) -> None:
    inputs, reset = _draw((B, T, 4, H, D), (4, H, D, D), (4, H, D)), _reset()
    expected = _slstm(inputs, reset, input_gate, normalizer)
    found, _ = ablated.slstm(*inputs, reset, None, "sigmoid", input_gate, normalizer)
    _assert_equal_with_gradients(found, expected, inputs)


def test_an_slstm_of_one_head_without_both_is_the_lstm_of_torch() -> None:
    x, R, b = _draw((B, T, 4, 1, D), (4, 1, D, D), (4, 1, D))
    lstm: Any = nn.LSTM(4 * D, D, batch_first=True).double()
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(torch.eye(4 * D))  # both order the gates i, f, z, o
        lstm.weight_hh_l0.copy_(R[:, 0].mT.flatten(0, 1))
        lstm.bias_ih_l0.copy_(b.flatten())
        lstm.bias_hh_l0.zero_()
        expected, (h, c) = lstm(x.flatten(2))
        found, state = ablated.slstm(x, R, b, None, None, "sigmoid", "sigmoid", False)
    torch.testing.assert_close(found[:, :, 0], expected)
    torch.testing.assert_close(state, (h[0][:, None], c[0][:, None]))


@pytest.mark.parametrize("gate", [1e4, float("nan")])
def test_what_was_before_a_reset_reaches_nothing_behind_it(gate: float) -> None:
    inputs = [x.detach() for x in _mlstm_inputs()]
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 5] = True
    options = (4, "sigmoid", "exponential", False, "auto")
    expected, _ = ablated.mlstm(*inputs, reset, None, *options)
    inputs[3][:, :5] = gate
    found, (C,) = ablated.mlstm(*inputs, reset, None, *options)
    torch.testing.assert_close(found[:, 5:], expected[:, 5:])
    assert C.isfinite().all()
