"""One step of the sLSTM in Triton against the float64 reference and the sequence."""

import pytest
import torch

from xlstm_rl import kernels

F32, BF16 = torch.float32, torch.bfloat16


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def call_step(xs, reset, **kwargs):
    h, state = kernels.slstm_step(*xs[:3], reset, tuple(xs[3:]) or None, **kwargs)
    return (h, *state)


@pytest.mark.parametrize(
    ("D", "with_state"), [(3, True), (16, False), slow(70, True), slow(70, False)]
)
def test_step_against_the_reference(hold_to_reference, make_slstm, D, with_state):
    xs = make_slstm(3, 1, 2, D, with_state)
    xs[0] = xs[0][:, 0]
    hold_to_reference(call_step, xs, torch.tensor([False, True, False]))


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize(("D", "with_state"), [(3, True), (24, False), slow(130, True)])
@pytest.mark.parametrize("forget_gate", ["sigmoid", slow("exponential")])
def test_step_without_gradients(device, make_slstm, dtype, D, with_state, forget_gate):
    xs = [x.to(dtype).to(device) for x in make_slstm(3, 1, 2, D, with_state)]
    reset = torch.tensor([False, True, False], device=device)
    args = (xs[0][:, 0], *xs[1:3], reset, tuple(xs[3:]) or None, forget_gate)
    h, after = kernels.slstm_step(*args, backend="triton")
    want, expected = kernels.slstm_step(*args, backend="reference")
    tol = {"rtol": 1e-5, "atol": 1e-5} if dtype == F32 else {"rtol": 2e-2, "atol": 2e-2}
    assert h.dtype == dtype
    for a, b in zip((h, *after), (want, *expected), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, **tol)


@pytest.mark.parametrize("D", [5, slow(80)])
def test_steps_equal_the_sequence(device, make_slstm, make_reset, D):
    x, R, b, *state = (t.float().to(device) for t in make_slstm(2, 4, 2, D))
    reset = make_reset("random", 2, 4).to(device)
    want, last = kernels.slstm(x, R, b, reset, tuple(state), backend="triton")
    now = tuple(state)
    for t in range(4):
        h, now = kernels.slstm_step(x[:, t], R, b, reset[:, t], now, backend="triton")
        torch.testing.assert_close(h, want[:, t])
    for a, s in zip(now, last, strict=True):
        torch.testing.assert_close(a, s)


@pytest.mark.parametrize("layout", ["dense", "view", "strided", "half"])
def test_step_in_place(device, make_slstm, layout):
    x, R, b, *state = (t.float().to(device) for t in make_slstm(20, 1, 2, 40))
    x, reset = x[:, 0], torch.arange(20, device=device) % 7 == 0
    if layout == "half":
        x, R, b, *state = (t.bfloat16() for t in (x, R, b, *state))
    elif layout == "view":
        state = [torch.zeros(20, 3, 64, device=device)[:, 1:, 8:48].copy_(s) for s in state]
    elif layout == "strided":
        state = [s.mT.contiguous().mT for s in state]
    want, after = kernels.slstm_step(x, R, b, reset, tuple(state), backend="triton")
    given = tuple(state)
    h, got = kernels.slstm_step(x, R, b, reset, given, backend="triton", inplace=True)
    assert all(a is b for a, b in zip(got, given, strict=True))
    assert torch.equal(h, want)
    for a, s in zip(got, after, strict=True):
        assert torch.equal(a, s.to(a.dtype))


def test_compiled_step_in_place(device, make_slstm):
    x, R, b, *state = (t.float().to(device) for t in make_slstm(2, 1, 1, 3))

    def run(x, *state):
        return kernels.slstm_step(x, R, b, None, state, backend="triton", inplace=True)[0]

    with torch.no_grad():
        want, after = kernels.slstm_step(x[:, 0], R, b, None, tuple(state), backend="triton")
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x[:, 0], *state), want)
    for a, s in zip(state, after, strict=True):
        torch.testing.assert_close(a, s)
