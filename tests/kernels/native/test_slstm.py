"""The sLSTM in C against the float64 reference: outputs, states and every gradient."""

import itertools

import pytest
import torch

from xlstm_rl import kernels
from xlstm_rl.kernels.native import slstm as native

F32, F64 = torch.float32, torch.float64
NAN, INF = float("nan"), float("inf")
GATES = pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
NAMES = ("y", "h", "c", "n", "m")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@GATES
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize(
    ("B", "T", "H", "D"),
    [
        *((1, 1, 1, 1), (2, 5, 1, 3), (3, 7, 2, 8), (9, 4, 1, 17), (4, 33, 4, 16)),
        *((4, 40, 2, 32), (5, 18, 1, 64), (2, 3, 1, 128), (70, 2, 2, 5), (3, 130, 3, 20)),
    ],
)
def test_lengths_and_head_sizes(B, T, H, D, with_state, forget_gate):
    xs = make(B, T, H, D, with_state)
    xs[0][:, :, 1] -= 1.0 * (forget_gate == "exponential")
    hold(xs, make_reset("random", B, T), forget_gate, tolerance=2e-5)


@GATES
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("kind", ["none", "all", "first", "last", "consecutive"])
@pytest.mark.parametrize("touch", [[0], [1, 2, 3, 4], [4], range(5)], ids=str)
def test_resets_and_losses(kind, with_state, touch, forget_gate):
    hold(make(3, 12, 2, 5, with_state), make_reset(kind, 3, 12), forget_gate, touch)


@GATES
@pytest.mark.parametrize(("i", "f"), [(80, 80), (80, -80), (-80, 80), (-80, -80)])
def test_gates_far_from_zero(i, f, forget_gate):
    xs = make(2, 5, 1, 8, with_state=False)
    xs[0][:, :, 0] += i
    xs[0][:, :, 1] += f
    hold(xs, make_reset("random", 2, 5), forget_gate, tolerance=1e-4)


@GATES
def test_gates_of_any_size(forget_gate):
    xs = make(3, 40, 1, 8, gates=60.0)
    xs[5].clamp_(min=0.5)  # what a fresh state would have weighed is no float
    hold(xs, make_reset("random", 3, 40), forget_gate, tolerance=1e-4)


def test_no_environments():
    xs = [x[:0] if n not in (1, 2) else x for n, x in enumerate(make(2, 3, 2, 4))]
    hold(xs, torch.zeros(0, 3, dtype=torch.bool))


def test_any_strides():
    B, T, H, D = 3, 6, 2, 8
    xs = make(B, T, H, D)
    want = run(xs, make_reset("random", B, T), "native", F32)
    spread = [x.mT.contiguous().mT for x in xs[:2]] + [x.expand(2, *x.shape)[1] for x in xs[2:]]
    spread[3] = torch.stack([xs[3], xs[3]], -1)[..., 0]
    reset = make_reset("random", B, T).t().contiguous().t()
    for a, b in zip(
        itertools.chain(*want), itertools.chain(*run(spread, reset, "native", F32)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("B", [1, 3, 9])
@pytest.mark.parametrize("D", [5, 16])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_steps_equal_the_sequence(B, D, grad, inplace):
    x, R, b, *state = make(B, 11, 2, D)
    reset = make_reset("random", B, 11)
    y, final = kernels.slstm(x, R, b, reset, tuple(state), backend="native")
    R.requires_grad_(grad and not inplace)
    state = tuple(s.clone() for s in state)
    for t in range(11):
        before = [s.clone() for s in state]
        options = {"backend": "native", "inplace": inplace}
        h, new = kernels.slstm_step(x[:, t], R, b, reset[:, t], state, **options)
        assert h.requires_grad == R.requires_grad
        if inplace:
            assert all(a is s for a, s in zip(new, state, strict=True))
        else:
            assert all(map(torch.equal, state, before))
        torch.testing.assert_close(h.detach(), y[:, t], rtol=1e-5, atol=1e-5)
        state = new
    for a, f in zip(state, final, strict=True):
        torch.testing.assert_close(a.detach(), f, rtol=1e-5, atol=1e-5)


def test_inplace_into_a_state_that_is_not_contiguous():
    x, R, b, *state = make(3, 1, 2, 4)
    want = kernels.slstm_step(x[:, 0], R, b, None, tuple(state), backend="torch")
    spread = tuple(torch.stack([s, s], -1)[..., 0] for s in state)
    options = {"backend": "native", "inplace": True}
    h, after = kernels.slstm_step(x[:, 0], R, b, None, spread, **options)
    for a, b in zip((h, *spread), (want[0], *want[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert all(a is s for a, s in zip(after, spread, strict=True))


def test_a_graph_that_kept_the_state_refuses_a_backward_after_inplace():
    x, R, b, *state = make(3, 1, 2, 4)
    product = R.requires_grad_()[0, :, 0] * state[0]
    y, _ = kernels.slstm(x, R, b, None, tuple(state), backend="native")
    with torch.no_grad():
        kernels.slstm_step(x[:, 0], R, b, None, tuple(state), backend="native", inplace=True)
    for graph in (y.sum(), product.sum()):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            graph.backward()


@pytest.mark.parametrize("B", [3, 21, 150])
def test_threads_do_not_change_a_bit(B):
    xs, reset = make(B, 9, 3, 8), make_reset("random", B, 9)
    one = run(xs, reset, "native", F32)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        for a, b in zip(
            itertools.chain(*one), itertools.chain(*run(xs, reset, "native", F32)), strict=True
        ):
            assert torch.equal(a, b)


def test_a_retained_graph_gives_the_same_gradients_again():
    xs = [x.requires_grad_() for x in make(4, 20, 2, 8)]

    def loss(scale):
        y, state = kernels.slstm(*xs[:3], None, tuple(xs[3:]), backend="native")
        return scale * (y.sum() + sum(s.square().sum() for s in state))

    first = loss(1.0)
    one = torch.autograd.grad(first, xs, retain_graph=True)
    for scale in (2.0, 3.0):  # forwards of the same size in between, which may not take its memory
        torch.autograd.grad(loss(scale), xs)
    for a, b in zip(one, torch.autograd.grad(first, xs), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(first, xs)


@GATES
@pytest.mark.parametrize("with_state", [False, True])
def test_second_derivatives(with_state, forget_gate):
    given, reset = make(2, 5, 1, 4, with_state), make_reset("consecutive", 2, 5)

    def twice(backend, dtype):
        xs = [x.to(dtype).requires_grad_() for x in given]
        options = {"forget_gate": forget_gate, "backend": backend}
        y, state = kernels.slstm(*xs[:3], reset, tuple(xs[3:]) or None, **options)
        loss = y.square().sum() + state[1].sum()
        first = torch.autograd.grad(loss, xs, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), xs)

    for a, b in zip(twice("native", F32), twice("reference", F64), strict=True):
        assert_close(a, b, 1e-4, "second derivative")


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("H", [1, 2])
def test_opcheck(with_state, H):
    xs = [x.requires_grad_() for x in make(2, 5, H, 3, with_state)]
    state = xs[3:] or [None] * 4
    reset = make_reset("consecutive", 2, 5)
    torch.library.opcheck(native.sequence_op, (*xs[:3], reset, *state, "sigmoid", True))


def test_compiled_equals_eager():
    xs = [x.requires_grad_() for x in make(2, 5, 2, 4)]
    reset = make_reset("consecutive", 2, 5)

    def loss(*xs):
        y, state = kernels.slstm(*xs[:3], reset, xs[3:], backend="native")
        h, _ = kernels.slstm_step(xs[0][:, 0], *xs[1:3], None, state, backend="native")
        return y.sum() + h.sum() + sum(s.square().sum() for s in state)

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    got, want = compiled(*xs), loss(*xs)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, xs), torch.autograd.grad(want, xs), strict=True):
        torch.testing.assert_close(a, b)


T, AT, RESET = 12, 4, 8  # every row begins anew at the second


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
