"""Broken numbers stay in their row, behind their step and inside their episode: the sLSTM cell."""

import pytest
import torch

from xlstm_rl import kernels

from .slstm_cases import GATES, NAMES, make

F32, F64 = torch.float32, torch.float64
NAN, INF = float("nan"), float("inf")
T, AT, RESET = 12, 4, 8  # every row begins anew at the second
pytestmark = pytest.mark.usefixtures("one_thread")


def spoiled(cases, forget_gate, how, dtype, backend):
    """Outputs and gradients where one number of x is replaced in every row but the last."""
    x, R, b, *state = (t.to(dtype) for t in make(len(cases) + 1, T, 2, 4))
    for row, (step, gate, value) in enumerate(cases):
        x[row, step, gate, 0, 1] = value
    state[2] = state[2].abs() + 0.5
    reset = torch.zeros(len(cases) + 1, T, dtype=torch.bool)
    reset[:, RESET] = True
    xs = [t.requires_grad_() for t in (x, R, b, *state)]
    options = {"forget_gate": forget_gate, "backend": backend}
    if how == "sequence":
        y, after = kernels.slstm(*xs[:3], reset, tuple(xs[3:]), **options)
    else:
        ys, after = [], tuple(xs[3:])
        for t in range(T):
            y, after = kernels.slstm_step(x[:, t], R, b, reset[:, t], after, **options)
            ys.append(y)
        y = torch.stack(ys, 1)
    (dx,) = torch.autograd.grad(torch.where(y.isfinite(), y, 0).sum(), [x])
    return [o.detach() for o in (y, *after)], dx


@GATES
@pytest.mark.parametrize("how", ["sequence", "steps"])
def test_what_is_not_finite_stays_in_its_row_behind_its_step_inside_its_episode(how, forget_gate):
    steps = (0, AT, RESET, T - 1)
    cases = [(t, g, v) for g in range(4) for t in steps for v in (INF, -INF, NAN)]
    want, _ = spoiled(cases, forget_gate, "sequence", F64, "reference")
    got, dx = spoiled(cases, forget_gate, how, F32, "native")
    for name, a, b in zip(NAMES, got, want, strict=True):
        assert torch.equal(a.isfinite(), b.isfinite()), name
        a, b = a.double()[b.isfinite()], b[b.isfinite()]
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * (1 + float(b.abs().max())))
    assert dx[-1].isfinite().all()
    inside = [n for n, (t, _, _) in enumerate(cases) if t < RESET]
    assert dx[inside, RESET:].isfinite().all()


def test_a_state_that_is_not_finite_ends_at_a_reset():
    x, R, b, *state = make(4, T, 2, 4)
    for row, s in enumerate(state):
        s[row, 0, 1] = NAN
    reset = torch.zeros(4, T, dtype=torch.bool)
    reset[:2, 0], reset[:, RESET] = True, True
    xs = [t.requires_grad_() for t in (x, R, b, *state)]
    y, after = kernels.slstm(*xs[:3], reset, tuple(xs[3:]), backend="native")
    assert y[:, RESET:].isfinite().all() and all(s.isfinite().all() for s in after)
    assert y[:2].isfinite().all()
    for g in torch.autograd.grad(y[:2].sum() + y[:, RESET:].sum(), [xs[0], *xs[3:]]):
        assert g[:2].isfinite().all()


def test_a_gradient_that_is_not_finite_goes_back_to_its_reset_and_no_further():
    xs = [t.requires_grad_() for t in make(2, T, 2, 4)]
    reset = torch.zeros(2, T, dtype=torch.bool)
    reset[0, AT] = True
    y, _ = kernels.slstm(*xs[:3], reset, tuple(xs[3:]), backend="native")
    dy = torch.ones_like(y)
    dy[0, RESET, 0, 1] = NAN
    dx, *_, dm = torch.autograd.grad(y, [xs[0], *xs[3:]], dy)
    assert dx[0, :AT].isfinite().all() and dm[0].isfinite().all() and dx[1].isfinite().all()
    assert dx[0, RESET].isnan().any()
