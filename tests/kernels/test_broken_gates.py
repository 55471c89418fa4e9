"""Gates that are not finite, or forget beyond all measure: the numbers of the definition."""

import pytest
import torch

from xlstm_rl import kernels

NAN, INF = float("nan"), float("inf")
B, T, H, K = 2, 24, 1, 16


def run(backend, gate, value, forget_gate, dtype):
    gen = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(B, T, H, K, generator=gen, dtype=torch.float64) for _ in "qkv")
    i, f = (torch.randn(B, T, H, generator=gen, dtype=torch.float64) for _ in "if")
    f -= 2.0 * (forget_gate == "exponential")
    (i if gate == "i" else f)[0, 3] = value
    sizes = (B, H, K, K), (B, H, K), (B, H)
    state = [torch.randn(size, generator=gen, dtype=torch.float64) for size in sizes]
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 13] = True
    inputs = [x.to(dtype) for x in (q, k, v, i, f)]
    state = tuple(s.to(dtype) for s in state)
    return kernels.mlstm(*inputs, reset, state, forget_gate=forget_gate, backend=backend)


def hold(backend, gate, value, forget_gate):
    h, state = run(backend, gate, value, forget_gate, torch.float32)
    want, final = run("reference", gate, value, forget_gate, torch.float64)
    for a, b in zip((h, *state), (want, *final), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5, equal_nan=True)
    return want


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
@pytest.mark.parametrize("gate", ["i", "f"])
@pytest.mark.parametrize("value", [-1e4, -1e30, -INF])
@pytest.mark.parametrize("backend", ["torch", "native", "triton"])
@pytest.mark.each_value("triton")
def test_what_is_shut_is_shut(backend, gate, value, forget_gate, monkeypatch):
    if backend == "triton":
        pytest.importorskip("triton")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert hold(backend, gate, value, forget_gate).isfinite().all()


@pytest.mark.parametrize(
    ("gate", "value", "forget_gate"),
    [
        ("i", NAN, "sigmoid"),
        ("i", INF, "sigmoid"),
        ("f", NAN, "sigmoid"),
        ("f", INF, "exponential"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # the interpreter's, of inf - inf
@pytest.mark.parametrize("backend", ["native", "triton"])
@pytest.mark.each_value("triton")
def test_a_broken_gate_breaks_its_episode_and_no_other(
    backend, gate, value, forget_gate, monkeypatch
):
    if backend == "triton":
        pytest.importorskip("triton")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    h = hold(backend, gate, value, forget_gate)
    assert h[0, 3:13].isnan().all()
    assert h[0, :3].isfinite().all() and h[0, 13:].isfinite().all() and h[1].isfinite().all()


def differentiate(execution, xs, reset, state, forget_gate, touches):
    """Outputs, and the gradients of a loss on the outputs ``touch`` in all inputs, by touch."""
    backend, how, dtype = execution
    if backend == "triton":
        pytest.importorskip("triton")
    inputs = [x.detach().to(dtype).requires_grad_() for x in (*xs, *state)]
    xs, state = inputs[:5], tuple(inputs[5:])
    options = {"forget_gate": forget_gate, "backend": backend}
    if how == "sequence":
        h, state = kernels.mlstm(*xs, reset, state, chunk_size=8, **options)
    else:
        hs = []
        for t in range(reset.shape[1]):
            now = [x[:, t] for x in xs]
            h, state = kernels.mlstm_step(*now, reset[:, t], state, **options)
            hs.append(h)
        h = torch.stack(hs, 1)
    outs = [h, *state]
    gen = torch.Generator().manual_seed(7)
    weights = [torch.randn(o.shape, generator=gen, dtype=torch.float64) for o in outs]
    parts = [(o.double() * w).sum() for o, w in zip(outs, weights, strict=True)]
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    return outs, [
        torch.autograd.grad(sum(parts[n] for n in touch), inputs, **options) for touch in touches
    ]


def hold_gradients(execution, given, same, forget_gate):
    """Of ``given`` under the execution, and of ``same``, which must be the same, as defined."""
    tol = 1e-9 if execution[2] is torch.float64 else 2e-4
    touches = ([0], [1], [2], [3], [0, 1, 2, 3])[:: 3 if execution[0] == "triton" else 1]
    outs, grads = differentiate(execution, *given, forget_gate, touches)
    exact = ("reference", "sequence", torch.float64)
    want, want_grads = differentiate(exact, *same, forget_gate, touches)
    for name, a, b in zip("hCnm", outs, want, strict=True):
        torch.testing.assert_close(
            a.double(), b, rtol=tol, atol=tol, msg=lambda m, name=name: f"{name}: {m}"
        )
    for touch, ours, theirs in zip(touches, grads, want_grads, strict=True):
        ours, theirs = ([g.detach() for g in each] for each in (ours, theirs))
        size = 1 + max(float(g.norm()) for g in theirs)
        for name, a, b in zip("qkvifCnm", ours, theirs, strict=True):
            assert a.isfinite().all(), name
            error = float((a - b).norm()) / size
            assert error < tol, f"gradient of {name}, loss on {touch}: {error:.3g}"
    return outs


def make(forget_gate, T=14):
    gen = torch.Generator().manual_seed(3)
    shapes = [(2, T, 1, 4)] * 3 + [(2, T, 1)] * 2 + [(2, 1, 4, 4), (2, 1, 4), (2, 1)]
    xs = [torch.randn(s, generator=gen, dtype=torch.float64).float().double() for s in shapes]
    xs[4] = xs[4] - 2.0 * (forget_gate == "exponential")
    reset = torch.zeros(2, T, dtype=torch.bool)
    reset[0, 5] = True
    for s in xs[5:]:
        s[1] = 0  # one row is fresh
    return xs[:5], reset, tuple(xs[5:])


EXECUTIONS = pytest.mark.parametrize(
    "execution",
    [
        ("torch", "sequence", torch.float64),
        ("torch", "sequence", torch.float32),
        ("torch", "steps", torch.float64),
        ("triton", "sequence", torch.float32),
        pytest.param(("triton", "steps", torch.float32), marks=pytest.mark.slow),
    ],
    ids=["torch-sequence-64", "torch-sequence-32", "torch-steps", "triton", "triton-steps"],
)
FORGET_GATES = pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])


FORGETS_ALL = [(-INF, 0), (-INF, 5), (-INF, 13), (-1e30, 9), (-1e6, 9)]


@pytest.fixture
def _interpreted(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@EXECUTIONS
@FORGET_GATES
@pytest.mark.parametrize(
    ("value", "at"),
    [(-INF, 9), *(pytest.param(v, t, marks=pytest.mark.slow) for v, t in FORGETS_ALL)],
)
@pytest.mark.usefixtures("_interpreted")
@pytest.mark.few(1, "triton")
def test_gradients_behind_what_forgets_all_are_those_behind_a_reset(
    execution, forget_gate, value, at
):
    xs, reset, state = make(forget_gate)
    given, starts = [x.clone() for x in xs], reset.clone()
    given[4][:, at], starts[:, at] = value, True
    hold_gradients(execution, (given, reset, state), (xs, starts, state), forget_gate)


@EXECUTIONS
@FORGET_GATES
@pytest.mark.parametrize("at", [5, slice(0, 7)])
@pytest.mark.usefixtures("_interpreted")
@pytest.mark.few(1, "triton")
def test_gradients_of_what_writes_nothing_are_those_of_the_definition(execution, forget_gate, at):
    xs, reset, state = make(forget_gate)
    xs[3][:, at] = -INF
    hold_gradients(execution, (xs, reset, state), (xs, reset, state), forget_gate)


@EXECUTIONS
@FORGET_GATES
@pytest.mark.parametrize("at", [0, 13])
@pytest.mark.usefixtures("_interpreted")
@pytest.mark.few(1, "triton")
def test_what_forgets_all_and_writes_nothing_leaves_a_fresh_row(execution, forget_gate, at):
    xs, reset, state = make(forget_gate)
    given, starts = [x.clone() for x in xs], reset.clone()
    given[3][:, at], given[4][:, at], starts[:, at] = -INF, -INF, True
    xs[3][:, at] = -INF
    outs = hold_gradients(execution, (given, reset, state), (xs, starts, state), forget_gate)
    if at == 13:
        assert all(s.eq(0).all() for s in outs[1:])
