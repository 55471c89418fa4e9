"""What is not finite stays in its row, behind its step and inside its episode, as defined."""

import itertools

import pytest
import torch

from xlstm_rl import kernels

NAN, INF = float("nan"), float("inf")
F32, F64 = torch.float32, torch.float64
T, K, W = 12, 4, 3
AT, RESET = 4, 8  # every row begins anew at the second


def executions(*slow):
    """Of every backend sequences and steps; the interpreter takes its time for many rows."""
    found = []
    for backend, how in itertools.product(("torch", "native", "triton"), ("sequence", "steps")):
        name = f"{backend}-{how}"
        marks = [pytest.mark.slow] if name in slow else []
        dtype = F64 if backend == "torch" else F32
        found.append(pytest.param((backend, how, dtype), marks=marks, id=name))
    return pytest.mark.parametrize("execution", found)


CELLS = pytest.mark.parametrize("name", ["mlstm", "slstm", "conv"])
FORGET_GATES = pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
pytestmark = pytest.mark.filterwarnings(
    "ignore:(invalid value|overflow|divide by zero) encountered"  # the interpreter's own
)


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")


class Cell:
    """A memory of H heads: its inputs at every step, its weights and its state, for B rows."""

    def __init__(self, name, B, forget_gate="sigmoid", H=1):
        self.name, self.options = name, {"forget_gate": forget_gate}
        if name == "mlstm":
            self.steps = {x: (B, T, H, K) for x in "qkv"} | {x: (B, T, H) for x in "if"}
            self.weights, self.state = {}, {"C": (B, H, K, K), "n": (B, H, K), "m": (B, H)}
            self.run, self.run_step = kernels.mlstm, kernels.mlstm_step
        elif name == "slstm":
            self.steps, self.weights = {"x": (B, T, 4, H, K)}, {"R": (4, H, K, K), "b": (4, H, K)}
            self.state = {s: (B, H, K) for s in "hcnm"}
            self.run, self.run_step = kernels.slstm, kernels.slstm_step
        else:
            self.steps, self.weights = {"x": (B, T, K)}, {"weight": (K, W), "bias": (K,)}
            self.state, self.options = {"state": (B, W - 1, K)}, {}
            self.run, self.run_step = kernels.causal_conv1d, kernels.causal_conv1d_step
        gen = torch.Generator().manual_seed(0)
        shapes = self.steps | self.weights | self.state
        self.inputs = {
            name: torch.randn(shape, generator=gen).double() for name, shape in shapes.items()
        }
        if name == "slstm":
            self.inputs["n"] = self.inputs["n"].abs() + 0.5
        self.reset = torch.zeros(B, T, dtype=torch.bool)
        self.reset[:, RESET] = True

    def __call__(self, execution, inputs, reset):
        """All outputs, of leaves in the dtype of the execution, and those leaves by name."""
        backend, how, dtype = execution
        if backend == "triton":
            pytest.importorskip("triton")
        leaves = {name: x.to(dtype).requires_grad_() for name, x in inputs.items()}
        xs, ws, state = (
            [leaves[name] for name in names] for names in (self.steps, self.weights, self.state)
        )
        options = {"backend": backend, **self.options}
        state = state[0] if len(state) == 1 else tuple(state)
        if how == "sequence":
            more = {"chunk_size": 6} if self.name == "mlstm" else {}
            h, state = self.run(*xs, *ws, reset, state, **options, **more)
        else:
            hs = []
            for t in range(T):
                now = [x[:, t] for x in xs]
                h, state = self.run_step(*now, *ws, reset[:, t], state, **options)
                hs.append(h)
            h = torch.stack(hs, 1)
        return [h, *(state if isinstance(state, tuple) else (state,))], leaves


def spoil(cell, cases):
    """The inputs with one number replaced in every row but the last: ``(name, index, value)``."""
    inputs = {n: x.clone() for n, x in cell.inputs.items()}
    for row, (name, index, value) in enumerate(cases):
        at = (row, *index)
        inputs[name][(*at, *[0] * (inputs[name].dim() - len(at)))] = value
    return inputs


def assert_same_where_finite(got, want, tol, what, everywhere=True):
    """Finite where ``want`` is, with its numbers, and if ``everywhere`` nowhere else."""
    finite = want.isfinite()
    bad = finite & ~got.isfinite()
    assert not bad.any(), f"{what} is not finite at {bad.nonzero()[:4].tolist()}"
    if everywhere:
        hidden = got.isfinite() & ~finite
        assert not hidden.any(), f"{what} is hidden at {hidden.nonzero()[:4].tolist()}"
    a, b = got.double()[finite], want.double()[finite]
    size = float(b.abs().max()) if len(b) else 0.0
    torch.testing.assert_close(a, b, rtol=tol, atol=tol * (1 + size), msg=lambda m: f"{what}: {m}")


def hold(cell, execution, inputs, dh=None, differentiate=True):
    """Against the reference; the loss is on what is finite, or has the gradient ``dh`` in h."""
    tol = 1e-9 if execution[2] is F64 else 1e-4
    found = []
    for way in (("reference", "sequence", F64), execution):
        outs, leaves = cell(way, inputs, cell.reset)
        gen = torch.Generator().manual_seed(5)
        given = [torch.randn(o.shape, generator=gen).to(o.dtype) for o in outs]
        given = [torch.where(o.isfinite(), g, 0) for o, g in zip(outs, given, strict=True)]
        if dh is not None:
            given[0] = torch.where(dh.isfinite(), given[0], dh.to(given[0].dtype))
        grads = torch.autograd.grad(
            outs, list(leaves.values()), given, allow_unused=True, materialize_grads=True
        )
        found.append(([o.detach() for o in outs], dict(zip(leaves, grads, strict=True))))
    (want, want_grads), (got, grads) = found
    for name, a, b in zip(("h", *cell.state), got, want, strict=True):
        assert_same_where_finite(a, b, tol, f"output {name}")
    for name, g in grads.items() if differentiate else ():
        if cell.name == "mlstm" and execution[:2] == ("triton", "sequence"):
            # the products of an infinite q or k with several steps cancel to NaN, and f's gradient
            # is summed over all later steps of the episode, the broken one among them
            rows = ~inputs["q"].isinf().flatten(1).any(1) & ~inputs["k"].isinf().flatten(1).any(1)
            want_grads[name], g = want_grads[name][rows], g[rows]
            if name == "f":
                want_grads[name], g = want_grads[name][:, RESET:], g[:, RESET:]
        assert_same_where_finite(g, want_grads[name], tol, f"gradient of {name}", everywhere=False)
    return got, grads


def hold_apart(name, cases, execution, forget_gate="sigmoid"):
    """Other rows, the steps before and those behind the next reset are as without it."""
    cell = Cell(name, len(cases) + 1, forget_gate, H=1 if execution[0] == "triton" else 2)
    got, grads = hold(cell, execution, spoil(cell, cases))
    clean = [x.detach() for x in cell(execution, cell.inputs, cell.reset)[0]]
    h = got[0]
    for part in ((-1,), (slice(None), slice(0, AT)), (slice(None), slice(RESET, None))):
        torch.testing.assert_close(h[part], clean[0][part], rtol=1e-5, atol=1e-5)
    for s, c in zip(got[1:], clean[1:], strict=True):
        torch.testing.assert_close(s, c, rtol=1e-5, atol=1e-5)
    for x in cell.steps:
        assert grads[x][-1].isfinite().all() and grads[x][:, RESET:].isfinite().all(), x
    assert not h[:-1, AT:RESET].flatten(1).isfinite().all(1).any()


@executions("triton-steps")
@pytest.mark.few(1, "triton")
def test_mlstm_keeps_it_in_its_row_behind_its_step_inside_its_episode(execution):
    cases = [(x, (AT,), v) for x in "qkv" for v in (NAN, INF)]
    cases += [("i", (AT,), NAN), ("i", (AT,), INF), ("f", (AT,), NAN)]
    hold_apart("mlstm", cases, execution)


@executions("triton-sequence", "triton-steps")
@FORGET_GATES
def test_mlstm_at_a_first_and_a_last_step(execution, forget_gate):
    cases = [(x, (t,), NAN) for x in "qkvif" for t in (RESET, T - 1)]
    cases += [(x, (t,), v) for x in "if" for t in (0, RESET, T - 1) for v in (INF, -INF)]
    cell = Cell("mlstm", len(cases) + 1, forget_gate)
    for s in cell.state:
        cell.inputs[s][::2] = 0
    # autograd gives a broken gate itself a gradient of 0, for that is what clamping NaN does; and
    # what a fresh state would have weighed is no float
    hold(cell, execution, spoil(cell, cases), differentiate=False)


@executions()
@pytest.mark.few(1, "triton")
def test_slstm_keeps_it_in_its_row_behind_its_step_inside_its_episode(execution):
    cases = [("x", (AT, gate, 0, 1), NAN) for gate in range(4)]
    cases += [("x", (AT, 0, 0, 1), INF)]
    hold_apart("slstm", cases, execution)


@executions("triton-sequence", "triton-steps")
@FORGET_GATES
def test_slstm_gates_at_any_step(execution, forget_gate):
    steps = (0, AT, RESET, T - 1)
    cases = [("x", (t, g), v) for g in range(4) for t in steps for v in (INF, -INF)]
    cases += [("x", (t, g), NAN) for g in (0, 1) for t in (0, RESET, T - 1)]
    cell = Cell("slstm", len(cases) + 1, forget_gate)
    for s in cell.state:
        cell.inputs[s][::2] = 0
    hold(cell, execution, spoil(cell, cases), differentiate=False)


@executions("triton-steps")
def test_a_convolution_keeps_it_in_its_row_and_its_episode(execution):
    hold_apart("conv", [("x", (AT,), INF), ("x", (RESET - 1,), NAN)], execution)


@executions("triton-steps")
@CELLS
@pytest.mark.few(2, "triton")
def test_a_state_that_is_not_finite_ends_at_a_reset(execution, name):
    parts = Cell(name, 1).state
    cell = Cell(name, 2 * len(parts) + 1)
    cell.reset[: len(parts), 0] = True
    got, grads = hold(cell, execution, spoil(cell, [(part, (), NAN) for part in (*parts, *parts)]))
    assert got[0][:, RESET:].isfinite().all() and all(s.isfinite().all() for s in got[1:])
    assert got[0][: len(parts)].isfinite().all()
    for x in (*cell.steps, *cell.state):
        assert grads[x][: len(parts)].isfinite().all(), x


@executions("triton-steps")
@CELLS
@pytest.mark.few(2, "triton")
def test_a_gradient_that_is_not_finite_goes_back_to_its_reset_and_no_further(execution, name):
    cell = Cell(name, 2)
    cell.reset[0, 2] = True
    dh = cell(("reference", "sequence", F64), cell.inputs, cell.reset)[0][0].detach().clone()
    dh[(0, AT, *[0] * (dh.dim() - 2))] = NAN
    _, grads = hold(cell, execution, cell.inputs, dh)
    for g in (grads[x] for x in cell.steps):
        assert not g[0, AT].isfinite().all()
        assert g[1].isfinite().all() and g[0, :2].isfinite().all()
        assert g[0, AT + 1 :].isfinite().all()
