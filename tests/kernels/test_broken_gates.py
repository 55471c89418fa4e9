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
@pytest.mark.parametrize("backend", ["torch", "triton"])
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
def test_a_broken_gate_breaks_its_episode_and_no_other(gate, value, forget_gate, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    h = hold("triton", gate, value, forget_gate)
    assert h[0, 3:13].isnan().all()
    assert h[0, :3].isfinite().all() and h[0, 13:].isfinite().all() and h[1].isfinite().all()


def differentiate(execution, xs, reset, state, forget_gate, touch):
    """Outputs, and the gradients of a loss on the outputs ``touch`` in all inputs."""
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
    loss = sum((outs[n].double() * weights[n]).sum() for n in touch)
    return outs, torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)


def hold_gradients(execution, given, same, forget_gate):
    """Of ``given`` under the execution, and of ``same``, which must be the same, as defined."""
    tol = 1e-9 if execution[2] is torch.float64 else 2e-4
    for touch in ([0], [1], [2], [3], range(4)):
        outs, grads = differentiate(execution, *given, forget_gate, touch)
        want, want_grads = differentiate(
            ("reference", "sequence", torch.float64), *same, forget_gate, touch
        )
        size = 1 + max(float(g.norm()) for g in want_grads)
        for name, a, b in zip("hCnmqkvifCnm", (*outs, *grads), (*want, *want_grads), strict=True):
            assert a.isfinite().all(), name
            error = float((a.detach() - b.detach()).norm()) / size
            assert error < tol, f"{name} of a loss on {touch}: {error:.3g}"


def make(forget_gate, T=20):
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
        ("triton", "steps", torch.float32),
    ],
    ids=lambda e: f"{e[0]}-{e[1]}-{str(e[2])[6:]}",
)
FORGET_GATES = pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])


@EXECUTIONS
@FORGET_GATES
@pytest.mark.parametrize("value", [-INF, -1e30, -1e6])
@pytest.mark.parametrize("at", [0, 5, 9, 13, 19])
def test_gradients_behind_what_forgets_all_are_those_behind_a_reset(
    execution, forget_gate, value, at, monkeypatch
):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    xs, reset, state = make(forget_gate)
    given, starts = [x.clone() for x in xs], reset.clone()
    given[4][:, at], starts[:, at] = value, True
    hold_gradients(execution, (given, reset, state), (xs, starts, state), forget_gate)


@EXECUTIONS
@FORGET_GATES
@pytest.mark.parametrize("at", [0, 5, 13, 19, slice(0, 7), slice(3, 20), slice(0, 20)])
def test_gradients_of_what_writes_nothing_are_those_of_a_definition(
    execution, forget_gate, at, monkeypatch
):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    xs, reset, state = make(forget_gate)
    xs[3][:, at] = -INF
    hold_gradients(execution, (xs, reset, state), (xs, reset, state), forget_gate)


@EXECUTIONS
@FORGET_GATES
@pytest.mark.parametrize("at", [0, 5, 13, 19])
def test_what_forgets_all_and_writes_nothing_leaves_a_fresh_row(
    execution, forget_gate, at, monkeypatch
):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    xs, reset, state = make(forget_gate)
    given, starts = [x.clone() for x in xs], reset.clone()
    given[3][:, at], given[4][:, at], starts[:, at] = -INF, -INF, True
    xs[3][:, at] = -INF
    hold_gradients(execution, (given, reset, state), (xs, starts, state), forget_gate)
    outs, _ = differentiate(execution, given, reset, state, forget_gate, [0])
    if at == 19:
        assert all(s.eq(0).all() for s in outs[1:])
