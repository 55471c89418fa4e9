"""What the tests of the sLSTM cell share: inputs, resets, and the reference in float64."""

import pytest
import torch

from xlstm_rl import kernels

F32, F64 = torch.float32, torch.float64
NAN, INF = float("nan"), float("inf")
GATES = pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
NAMES = ("y", "h", "c", "n", "m")


def make(B, T, H, D, with_state=True, gates=1.0, seed=0):
    """x, R, b and the state; one row is fresh, one has n = 0 here and there."""
    gen = torch.Generator().manual_seed(seed)
    shapes = [(B, T, 4, H, D), (4, H, D, D), (4, H, D)] + [(B, H, D)] * 4 * with_state
    xs = [torch.randn(s, generator=gen) for s in shapes]
    xs[1] *= D**-0.5
    xs[0][:, :, :2] *= gates
    if with_state:
        xs[5] = xs[5].abs() + 0.5  # a normaliser
        for x in xs[3:]:
            x[0] = 0
        xs[4][-1, :, ::2] = xs[5][-1, :, ::2] = 0
    return xs


def make_reset(kind, B, T):
    if kind == "none":
        return None
    reset = torch.zeros(B, T, dtype=torch.bool)
    if kind == "all":
        reset[:] = True
    elif kind == "first":
        reset[:, 0] = True
    elif kind == "last":
        reset[:, -1] = True
    elif kind == "consecutive":
        reset[0, T // 3 : T // 3 + 3] = True
    elif kind == "random":
        reset = torch.rand(B, T, generator=torch.Generator().manual_seed(T)) < 0.15
    return reset


def run(xs, reset, backend, dtype, forget_gate="sigmoid", touch=range(5)):
    """All outputs, and the gradients in all inputs of a loss on the outputs ``touch``."""
    xs = [x.to(dtype).requires_grad_() for x in xs]
    options = {"forget_gate": forget_gate, "backend": backend}
    y, state = kernels.slstm(*xs[:3], reset, tuple(xs[3:]) or None, **options)
    outs = [y, *state]
    gen = torch.Generator().manual_seed(7)
    weights = [torch.randn(o.shape, generator=gen).to(dtype) for o in outs]
    loss = sum((outs[n] * weights[n]).sum() for n in touch)
    grads = torch.autograd.grad(loss, xs, allow_unused=True, materialize_grads=True)
    return [o.detach() for o in outs], grads


def assert_close(got, want, tolerance, what, least=1e-30):
    """Within that of the largest number, or of the least that counts."""
    assert got.shape == want.shape, what
    if not want.numel():
        return
    assert got.isfinite().all(), f"{what} is not finite"
    error = float((got.double() - want).abs().max()) / max(float(want.abs().max()), least)
    assert error <= tolerance, f"{what}: {error:.2g}"


def hold(xs, reset, forget_gate="sigmoid", touch=range(5), tolerance=1e-5):
    want, want_grads = run(xs, reset, "reference", F64, forget_gate, touch)
    got, grads = run(xs, reset, "native", F32, forget_gate, touch)
    for name, a, b in zip(NAMES, got, want, strict=True):
        assert_close(a, b, tolerance, name)
    least = max(1e-2 * max(float(g.abs().max()) for g in want_grads if g.numel()), 1e-30)
    for name, a, b in zip("xRbhcnm", grads, want_grads, strict=False):
        assert_close(a, b, tolerance, f"gradient of {name}", least)  # below it all is rounding
