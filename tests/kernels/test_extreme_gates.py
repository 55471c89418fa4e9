"""Gates far from 0: a state without content has no say in m, and h is that of the closed form."""

import pytest
import torch
import torch.nn.functional as F

from xlstm_rl import kernels

F32, F64 = torch.float32, torch.float64
GATES = pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
EXECUTIONS = pytest.mark.parametrize(
    "execution",
    [
        ("reference", F64, "sequence"),
        ("reference", F32, "sequence"),
        ("torch", F64, "sequence"),
        ("torch", F32, "sequence"),
        ("torch", F64, "steps"),
        ("torch", F32, "steps"),
        ("native", F32, "sequence"),
        ("native", F32, "steps"),
        ("triton", F32, "sequence"),
        pytest.param(("triton", F32, "steps"), marks=pytest.mark.slow),
    ],
    ids=lambda e: f"{e[0]}-{str(e[1])[6:]}-{e[2]}",
)


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def run(execution, xs, reset, state, forget_gate, chunk_size=8):
    """``h, C, n, m`` of inputs in float64, computed in the execution's dtype."""
    backend, dtype, how = execution
    if backend == "triton":
        pytest.importorskip("triton")
    xs = [x.to(dtype) for x in xs]
    state = None if state is None else tuple(s.to(dtype) for s in state)
    options = {"forget_gate": forget_gate, "backend": backend}
    if how == "sequence":
        h, state = kernels.mlstm(*xs, reset, state, chunk_size=chunk_size, **options)
        return h, *state
    hs = []
    for t in range(xs[0].shape[1]):
        now = None if reset is None else reset[:, t]
        h, state = kernels.mlstm_step(*(x[:, t] for x in xs), now, state, **options)
        hs.append(h)
    return torch.stack(hs, 1), *state


def make(B, T, H, K, gates, seed=0, whole=False):
    """Inputs whose `q . n` is seldom near 0, gates of that deviation, resets, a mixed state."""
    gen = torch.Generator().manual_seed(seed)
    shapes = [(B, T, H, K)] * 3 + [(B, T, H)] * 2 + [(B, H, K, K), (B, H, K), (B, H)]
    xs = [torch.randn(s, generator=gen, dtype=F64).float().double() for s in shapes]
    sign = torch.randn(B, T, H, 1, generator=gen, dtype=F64).sign()
    xs[0], xs[1] = (xs[0] / 2 + 0.5) * sign, xs[1] / 2 + 0.5
    xs[3], xs[4] = (xs[3] * gates).float().double(), (xs[4] * gates).float().double()
    xs[6] = xs[6].abs() + 0.5
    for s in xs[5:]:
        s[0] = 0  # one row is fresh
    reset = torch.rand(B, T, generator=gen) < 0.15
    reset[0, 0], reset[-1, 0] = False, False
    return xs[:5], reset, tuple(xs[5:])


def assert_close(got, want, tol, what=""):
    """In norm: single rows may be ill-conditioned where `q . n` is near 0."""
    assert got.isfinite().all(), what
    error = float((got.detach().double() - want.detach()).norm()) / max(
        float(want.detach().norm()), 1e-6
    )
    assert error <= tol, f"{what}: {error:.3g}"


def closed_form(q, k, v, i, f, reset=None, state=None, forget_gate="sigmoid"):
    """``h [B, T, H, V]`` without a state or a stabiliser: one sum over all pairs of steps.

    A step j of t's episode weighs ``exp(i_j + sum of log f behind j)``. Nothing is shared with the
    recursion: no m is carried, so none can be chosen badly.
    """
    B, T, H, K = q.shape
    reset = torch.zeros(B, T, dtype=torch.bool) if reset is None else reset
    log_f = F.logsigmoid(f) if forget_gate == "sigmoid" else f
    qk = torch.einsum("bthk,bjhk->bhtj", q, k) * K**-0.5
    rows = []
    for t in range(T):
        # [B, H, t + 2]: of the first state, and of the steps 0 .. t
        behind = log_f[:, : t + 1].flip(1).cumsum(1).flip(1).movedim(1, 2)
        later = F.pad(behind[..., 1:], (0, 1))
        log = i[:, : t + 1].movedim(1, 2) + later
        seen = torch.ones(B, t + 2, dtype=torch.bool)
        for j in range(t + 1):  # a reset hides what lies before it
            seen[:, : j + 1] &= ~reset[:, j, None]
        start = torch.zeros(B, H, dtype=q.dtype) if state is None else state[2]
        log = torch.cat([(start + behind[..., 0])[..., None], log], -1)
        log = log.masked_fill(~seen[:, None], -torch.inf)
        fresh = torch.ones(B, H, dtype=torch.bool) if state is None else state[1].eq(0).all(-1)
        top = log.detach()[..., 1:].amax(-1).clamp(min=0)
        top = torch.where(fresh, top, torch.maximum(top, log.detach()[..., 0]))[..., None]
        w = (log - top).clamp(max=600).exp()  # above 0: of a fresh state, which holds nothing
        inner = qk[:, :, t, : t + 1]
        num = torch.einsum("bhj,bhj,bjhv->bhv", w[..., 1:], inner, v[:, : t + 1])
        den = (w[..., 1:] * inner).sum(-1)
        if state is not None:
            C, n = (s.masked_fill(~seen[:, 0].view(B, *[1] * (s.dim() - 1)), 0) for s in state[:2])
            num = num + w[..., :1] * torch.einsum("bhk,bhkv->bhv", q[:, t], C) * K**-0.5
            den = den + w[..., 0] * torch.einsum("bhk,bhk->bh", q[:, t], n) * K**-0.5
        rows.append(num / torch.maximum(den.abs(), (-top[..., 0]).exp())[..., None])
    return torch.stack(rows, 1)


@EXECUTIONS
def test_a_fresh_row_has_no_say_in_the_maximum(execution):
    # a forget gate of e^70 at a reset has nothing to forget: every step answers q . k v / q . k
    x = torch.ones(1, 4, 1, 4, dtype=F64)
    i, f = torch.zeros(1, 4, 1, dtype=F64), torch.tensor([0.0, 70, 0, 0], dtype=F64).view(1, 4, 1)
    reset = torch.tensor([[False, True, False, False]])
    h, C, n, m = run(execution, [x, x, x, i, f], reset, None, "exponential", 64)
    torch.testing.assert_close(h, torch.ones_like(h))
    torch.testing.assert_close(m, torch.zeros_like(m), rtol=0, atol=0)
    torch.testing.assert_close(n, torch.full_like(n, 3.0))
    torch.testing.assert_close(C, torch.full_like(C, 3.0))


@EXECUTIONS
@GATES
@pytest.mark.parametrize("fresh", ["none", "zeros", "reset"])
@pytest.mark.each_value("triton")
def test_behind_a_first_step_m_is_the_input_gate(execution, forget_gate, fresh):
    (q, k, v, i, f), _, state = make(3, 1, 2, 4, 150.0)
    f = f.abs()  # where it can lift m
    reset = torch.ones(3, 1, dtype=torch.bool) if fresh == "reset" else None
    state = {"none": None, "zeros": tuple(s * 0 for s in state), "reset": state}[fresh]
    _, C, n, m = run(execution, [q, k, v, i, f], reset, state, forget_gate)
    torch.testing.assert_close(m.double(), i[:, 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(n.double(), k[:, 0], rtol=1e-6, atol=1e-6)
    kv = k[:, 0, ..., None] * v[:, 0, :, None]
    torch.testing.assert_close(C.double(), kv, rtol=1e-6, atol=1e-6)


def sweep(execution, forget_gate, gates, seed, B=3, T=20, K=8, sides=()):
    xs, reset, state = make(B, T, 1, K, gates, seed)
    for gate, sign in zip((3, 4), sides, strict=False):
        xs[gate] = sign * xs[gate].abs()
    inputs = [x.requires_grad_() for x in (*xs, *state)]
    xs, state = inputs[:5], tuple(inputs[5:])
    weight = torch.randn(xs[2].shape, generator=torch.Generator().manual_seed(1), dtype=F64)

    def outputs_and_grads(outs, more=0.0):
        return outs, torch.autograd.grad((outs[0].double() * weight).sum() + more, inputs)

    want_h, want_grads = outputs_and_grads((closed_form(*xs, reset, state, forget_gate),))
    got, grads = outputs_and_grads(run(execution, xs, reset, state, forget_gate))
    # float32: where q . n is near 0 roundings grow; at 1e4 the last digit of m itself is .001
    tol = 1e-8 if execution[1] is F64 else 1e-4 if gates < 1e3 else 5e-4
    assert_close(got[0], want_h[0], tol, "h")
    with torch.no_grad():
        final = run(("reference", F64, "sequence"), xs, reset, state, forget_gate)[1:]
    for name, a, b in zip("Cnm", got[1:], final, strict=True):
        assert_close(a, b, tol, name)
    # where one step outweighs all others its gradients cancel: what is left is the terms' rounding
    least = max(0.1 * max(float(g.norm()) for g in want_grads), 1e-30)
    for name, a, b in zip("qkvifCnm", grads, want_grads, strict=True):
        if name in "Cn" and gates > 10:  # what a fresh state would have weighed is no float
            a, b = a[1:], b[1:]
        assert a.isfinite().all(), name
        error = float((a - b).norm()) / max(float(b.norm()), least)
        assert error <= 50 * tol, f"gradient of {name}: {error:.3g}"


@EXECUTIONS
@GATES
@pytest.mark.parametrize("gates", [3.0, 150.0])
@pytest.mark.each_value("triton")
def test_gates_of_any_size_equal_the_closed_form(execution, forget_gate, gates):
    sweep(execution, forget_gate, gates, seed=0, B=2, T=12, K=4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overflow encountered")  # of a fresh state's gradient, see above
@EXECUTIONS
@GATES
@pytest.mark.parametrize("gates", [30.0, 80.0, 150.0, 1e3, 1e4])
@pytest.mark.parametrize("sides", [(), (1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_a_sweep_of_gates_equals_the_closed_form(execution, forget_gate, gates, sides):
    seeds, T = (1, 20) if execution[0] == "triton" else (4, 37)  # interpreted, it takes minutes
    for seed in range(seeds):
        sweep(execution, forget_gate, gates, seed, T=T, sides=sides)
