"""The sLSTM in C against the float64 reference: outputs, states and every gradient."""

import itertools

import pytest
import torch

from xlstm_rl import kernels
from xlstm_rl.kernels.native import slstm as native

from .slstm_cases import GATES, assert_close, hold, make, make_reset, run

F32, F64 = torch.float32, torch.float64
NAN, INF = float("nan"), float("inf")
pytestmark = pytest.mark.usefixtures("one_thread")


@GATES
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize(
    ("B", "T", "H", "D"),
    [
        *((1, 1, 1, 1), (2, 5, 1, 3), (3, 7, 2, 8), (9, 4, 1, 17), (4, 33, 4, 16)),
        *((4, 40, 2, 32), (5, 18, 1, 64), (2, 3, 1, 128), (70, 2, 2, 5), (3, 130, 3, 20)),
    ],
)
@pytest.mark.each_value
def test_lengths_and_head_sizes(B, T, H, D, with_state, forget_gate):
    xs = make(B, T, H, D, with_state)
    xs[0][:, :, 1] -= 1.0 * (forget_gate == "exponential")
    hold(xs, make_reset("random", B, T), forget_gate, tolerance=2e-5)


@GATES
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("kind", ["none", "all", "first", "last", "consecutive"])
@pytest.mark.parametrize("touch", [[0], [1, 2, 3, 4], [4], range(5)], ids=str)
@pytest.mark.each_value
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
@pytest.mark.each_value
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
