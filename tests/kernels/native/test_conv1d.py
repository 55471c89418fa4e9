"""The causal convolution in C against the float64 reference."""

import pytest
import torch
import torch.nn.functional as F

from xlstm_rl import kernels

from .mlstm_cases import error

SHAPES = [(2, 64, 64, 4), (3, 33, 20, 3), (2, 5, 7, 9), (9, 70, 16, 2), (1, 1, 1, 1), (2, 40, 8, 1)]


def make(B, T, C, W, state, bias, resets=0.1):
    gen = torch.Generator().manual_seed(0)
    shapes = [(B, T, C), (C, W), (C,), (B, W - 1, C)]
    x, weight, b, s = (torch.randn(s, generator=gen, dtype=torch.float64) for s in shapes)
    reset = torch.rand(B, T, generator=gen) < resets
    return x, weight, b if bias else None, reset, s if state else None


def run(inputs, dtype, backend, activation):
    x, weight, bias, reset, state = inputs
    x, weight, bias, state = (
        None if t is None else t.to(dtype).requires_grad_() for t in (x, weight, bias, state)
    )
    outputs = kernels.causal_conv1d(
        x, weight, bias, reset, state, activation=activation, backend=backend
    )
    leaves = [t for t in (x, weight, bias, state) if t is not None]
    gen = torch.Generator().manual_seed(1)
    given = [torch.randn(o.shape, generator=gen, dtype=torch.float64).to(dtype) for o in outputs]
    return [*(o.detach() for o in outputs), *torch.autograd.grad(outputs, leaves, given)]


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_float64_reference(shape, state, activation):
    inputs = make(*shape, state, bias=shape[0] != 3)
    want = run(inputs, torch.float64, "reference", activation)
    for a, b in zip(run(inputs, torch.float32, "native", activation), want, strict=True):
        assert error(a, b) < 1e-5


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_steps_equal_the_sequence(shape, inplace):
    x, weight, bias, reset, state = make(*shape, True, True)
    with torch.no_grad():
        want, last = kernels.causal_conv1d(x, weight, bias, reset, state, backend="reference")
        xs, ws, bs, now = (t.float() for t in (x, weight, bias, state))
        for t in range(shape[1]):
            y, after = kernels.causal_conv1d_step(
                xs[:, t], ws, bs, reset[:, t], now, "silu", backend="native", inplace=inplace
            )
            assert (after is now) == inplace
            now = after
            torch.testing.assert_close(y.double(), F.silu(want[:, t]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(now.double(), last, rtol=1e-5, atol=1e-5)
