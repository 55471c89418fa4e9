"""What the tests of the sLSTM block share: blocks, inputs, and the equations in float64."""

import copy
from unittest import mock

import pytest
import torch

from xlstm_rl.kernels.native import slstm_block as native
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.memory.slstm_block import SLSTMBlock

F32, F64 = torch.float32, torch.float64
NAN = float("nan")
OPTIONS = {
    "default": {},
    "wide": {"width": 128},
    "no convolution": {"slstm_conv1d_kernel_size": 0},
    "no feed-forward": {"feedforward_proj_factor": 0.0},
    "neither": {"slstm_conv1d_kernel_size": 0, "feedforward_proj_factor": 0.0},
    "odd sizes": {"width": 30, "num_heads": 3, "round_to": 1, "conv1d_kernel_size": 3},
    "one odd head": {"width": 19, "num_heads": 1, "round_to": 7, "conv1d_kernel_size": 2},
    "many taps": {"width": 24, "conv1d_kernel_size": 9, "feedforward_activation": "sigmoid"},
    "exponential": {"forget_gate": "exponential", "feedforward_activation": "selu"},
    "biases": {"feedforward_bias": True, "feedforward_activation": "swish"},
    "relu": {"num_heads": 2, "feedforward_activation": "relu"},
    "relu^2": {"feedforward_bias": True, "feedforward_activation": "relu^2"},
}
EVERY = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
SOME = pytest.mark.parametrize("options", [OPTIONS["default"], OPTIONS["odd sizes"]], ids=str)


def make(options, B, T, with_state=True, seed=0):
    """A block off its initial weights, inputs, resets and a state of which one row is fresh."""
    torch.manual_seed(seed)
    config = MemoryConfig(**{"pattern": "s", "width": 64, "backend": "native", **options})
    block = SLSTMBlock(config, 2, 1)
    with torch.no_grad():
        for p in block.parameters():
            p.add_(0.1 * torch.randn_like(p))
    state = [torch.randn(B, *shape) for shape in block.state_shapes.values()]
    state[-2] = state[-2].abs() + 0.5
    for s in state:
        s[:1] = 0
    return (
        block,
        torch.randn(B, T, config.width),
        torch.rand(B, T) < 0.15,
        tuple(state) * with_state,
    )


def exact(block):
    """The same block in float64, as its equations say it."""
    block = copy.deepcopy(block).double()
    block._options = block._options._replace(backend="reference")
    return block


def run(block, x, reset, state, touch=None):
    dtype = block.norm.weight.dtype
    inputs = [t.to(dtype).requires_grad_() for t in (x, *state)]
    y, after = block(inputs[0], tuple(inputs[1:]) or None, reset)
    outs = [y, *after]
    gen = torch.Generator().manual_seed(7)
    weights = [torch.randn(o.shape, generator=gen).to(dtype) for o in outs]
    touch = range(len(outs)) if touch is None else touch
    loss = sum((outs[n] * weights[n]).sum() for n in touch)
    wanted = [*inputs, *block.parameters()]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return [o.detach() for o in outs], [g.detach() for g in grads]


def assert_close(got, want, tolerance, what, least=1e-30):
    assert got.shape == want.shape and got.isfinite().all(), what
    if want.numel():
        error = float((got.double() - want).abs().max()) / max(float(want.abs().max()), least)
        assert error <= tolerance, f"{what}: {error:.2g}"


def hold(block, x, reset, state, touch=None, tolerance=1e-5):
    with mock.patch.object(native, "_forward", wraps=native._forward) as called:
        got, grads = run(block, x, reset, state, touch)
    assert called.call_count == 1
    want, want_grads = run(exact(block), x, reset, state, touch)
    states = list(block.state_shapes)
    for name, a, b in zip(["y", *states], got, want, strict=True):
        assert_close(a, b, tolerance, name)
    names = ["x", *states[: len(state)], *(name for name, _ in block.named_parameters())]
    least = max(1e-2 * max(float(g.abs().max()) for g in want_grads if g.numel()), 1e-30)
    for name, a, b in zip(names, grads, want_grads, strict=True):
        assert_close(a, b, tolerance, f"gradient of {name}", least)
