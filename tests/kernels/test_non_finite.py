"""What is not finite stays in its row, behind its step and inside its episode, as defined."""

import pytest
import torch

from xlstm_rl import kernels

NAN, INF = float("nan"), float("inf")
F32, F64 = torch.float32, torch.float64
B, T, H, K, W = 2, 14, 2, 4, 3
AT, RESET = 4, 9  # in row 0; row 1 has its own reset

EXECUTIONS = pytest.mark.parametrize(
    "execution",
    [
        ("torch", "sequence", F64),
        ("torch", "steps", F64),
        ("triton", "sequence", F32),
        ("triton", "steps", F32),
    ],
    ids=lambda e: f"{e[0]}-{e[1]}",
)
pytestmark = pytest.mark.filterwarnings(
    "ignore:(invalid value|overflow|divide by zero) encountered"  # the interpreter's own
)


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")


class Cell:
    """A memory: the shapes of its inputs by step, its weights, and of its state."""

    def __init__(self, name, forget_gate="sigmoid"):
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
        self.reset[0, RESET] = self.reset[1, 6] = True

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
            more = {"chunk_size": 8} if self.name == "mlstm" else {}
            h, state = self.run(*xs, *ws, reset, state, **options, **more)
        else:
            hs = []
            for t in range(T):
                now = [x[:, t] for x in xs]
                h, state = self.run_step(*now, *ws, reset[:, t], state, **options)
                hs.append(h)
            h = torch.stack(hs, 1)
        return [h, *(state if isinstance(state, tuple) else (state,))], leaves


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


def hold(cell, execution, inputs, reset, dh=None, differentiate=True):
    """Against the reference; the loss is on what is finite, or has the gradient ``dh`` in h."""
    tol = 1e-9 if execution[2] is F64 else 1e-4
    found = []
    for way in (("reference", "sequence", F64), execution):
        outs, leaves = cell(way, inputs, reset)
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
        assert_same_where_finite(g, want_grads[name], tol, f"gradient of {name}", everywhere=False)
    return got, grads


def spoil(cell, name, value, at=AT):
    inputs = {n: x.clone() for n, x in cell.inputs.items()}
    x = inputs[name]
    if name in cell.state:
        x[(0, *[0] * (x.dim() - 1))] = value
    elif name == "x" and cell.name == "slstm":
        x[0, at, :, 0, 1] = value
    else:
        x[(0, at, *[0] * (x.dim() - 2))] = value
    return inputs


MLSTM = pytest.mark.parametrize(
    ("name", "value"),
    [(x, v) for x in "qkv" for v in (NAN, INF)] + [("i", NAN), ("i", INF), ("f", NAN)],
)


def hold_apart(cell, execution, inputs, at=AT):
    """Other rows, the steps before and those behind the next reset are as without it."""
    got, grads = hold(cell, execution, inputs, cell.reset)
    clean, _ = cell(execution, cell.inputs, cell.reset)
    h, c = got[0], clean[0].detach()
    for part in ((slice(1, None),), (0, slice(0, at)), (0, slice(RESET, None))):
        torch.testing.assert_close(h[part], c[part], rtol=1e-5, atol=1e-5)
    for s, c in zip(got[1:], clean[1:], strict=True):
        torch.testing.assert_close(s, c.detach(), rtol=1e-5, atol=1e-5)
    for name in cell.steps:
        assert grads[name][1:].isfinite().all(), name
        assert grads[name][0, RESET:].isfinite().all(), name
    assert not h[0, at].isfinite().all()


@EXECUTIONS
@MLSTM
def test_mlstm_keeps_it_in_its_row_behind_its_step_inside_its_episode(execution, name, value):
    cell = Cell("mlstm")
    hold_apart(cell, execution, spoil(cell, name, value))


@EXECUTIONS
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("at", [0, RESET])
def test_mlstm_with_an_endless_forget_gate_where_nothing_is_to_forget(execution, value, at):
    cell = Cell("mlstm", "exponential")
    inputs = spoil(cell, "f", value, at)
    for s in cell.state:
        inputs[s][0] = 0
    # what a fresh state would have weighed, and so its gradient, is no float
    hold(cell, execution, inputs, cell.reset, differentiate=False)


@EXECUTIONS
@pytest.mark.parametrize("name", ["q", "k", "v", "i", "f"])
def test_mlstm_in_the_last_episode_reaches_the_final_state(execution, name):
    cell = Cell("mlstm")
    hold(cell, execution, spoil(cell, name, NAN, at=11), cell.reset)


@EXECUTIONS
@pytest.mark.parametrize("gate", range(4))
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_slstm_keeps_it_in_its_row_behind_its_step_inside_its_episode(execution, gate, value):
    cell = Cell("slstm")
    inputs = spoil(cell, "x", 0.0)
    inputs["x"][0, AT, gate, 0, 1] = value
    hold(cell, execution, inputs, cell.reset)
    if value != value:
        hold_apart(cell, execution, inputs)


@EXECUTIONS
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("at", [0, RESET, T - 1])
@pytest.mark.parametrize("gate", [0, 1])
def test_slstm_gates_of_a_first_and_a_last_step(execution, value, at, gate):
    cell = Cell("slstm", "exponential")
    inputs = spoil(cell, "x", 0.0)
    for s in cell.state:
        inputs[s][0] = 0
    inputs["x"][0, at, gate, 0, 1] = value
    # autograd gives the broken gate itself a gradient of 0, for that is what clamping NaN does
    hold(cell, execution, inputs, cell.reset, differentiate=False)


@EXECUTIONS
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("at", [AT, RESET - 1])
def test_a_convolution_keeps_it_in_its_row_and_its_episode(execution, value, at):
    cell = Cell("conv")
    hold_apart(cell, execution, spoil(cell, "x", value, at), at)


@EXECUTIONS
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["mlstm", "slstm", "conv"])
def test_a_state_that_is_not_finite_ends_at_a_reset(execution, name, first):
    cell = Cell(name)
    cell.reset[0, 0] = first
    for part in cell.state:
        got, grads = hold(cell, execution, spoil(cell, part, NAN), cell.reset)
        assert got[0][1].isfinite().all() and got[0][0, RESET:].isfinite().all()
        if first:
            assert all(x.isfinite().all() for x in got)
            assert all(g.isfinite().all() for g in grads.values())


@EXECUTIONS
@pytest.mark.parametrize("name", ["mlstm", "slstm", "conv"])
def test_a_gradient_that_is_not_finite_goes_back_to_its_reset_and_no_further(execution, name):
    cell = Cell(name)
    cell.reset[0, 2] = True
    dh = cell(("reference", "sequence", F64), cell.inputs, cell.reset)[0][0].detach().clone()
    dh[(0, AT, *[0] * (dh.dim() - 2))] = NAN
    _, grads = hold(cell, execution, cell.inputs, cell.reset, dh)
    for name in cell.steps:
        g = grads[name]
        assert not g[0, AT].isfinite().all()
        assert g[1:].isfinite().all() and g[0, :2].isfinite().all()
        assert g[0, AT + 1 :].isfinite().all()
