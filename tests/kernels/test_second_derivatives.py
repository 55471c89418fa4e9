"""The gradients of the hand-written backward passes can be differentiated again, to any order."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.functional import hessian, hvp, vhp
from torch.utils.checkpoint import checkpoint

from xlstm_rl import kernels
from xlstm_rl.kernels.mlstm.ops import chunkwise_op
from xlstm_rl.kernels.slstm.ops import scan_op

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"torch": torch.float64, "native": torch.float32, "triton": torch.float32}
B, T, H, K = 2, 5, 1, 4
RESET = torch.tensor([[False, False, True, False, False], [True, False, False, False, True]])


FUNCTIONS = {  # and how many inputs lead the resets
    "mlstm": (5, kernels.mlstm, kernels.mlstm_step),
    "slstm": (3, kernels.slstm, kernels.slstm_step),
    "conv": (3, kernels.causal_conv1d, kernels.causal_conv1d_step),
}
OPTIONS = {
    "mlstm of an exponential gate": {"forget_gate": "exponential"},
    "slstm of an exponential gate": {"forget_gate": "exponential"},
    "conv with silu": {"activation": "silu"},
}
NAMES = (*FUNCTIONS, *OPTIONS)


def inputs(name, dtype=torch.float32, with_state=False):
    gen = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=gen).to(DEVICE, dtype).requires_grad_()

    def rand(*shape):
        return torch.rand(shape, generator=gen).add(0.5).to(DEVICE, dtype).requires_grad_()

    if name.startswith("mlstm"):
        xs = [randn(B, T, H, K) for _ in range(3)] + [randn(B, T, H), randn(B, T, H)]
        return xs + [randn(B, H, K, K), randn(B, H, K), randn(B, H)] * with_state
    if name.startswith("slstm"):
        xs = [randn(B, T, 4, H, K), randn(4, H, K, K), randn(4, H, K)]
        return xs + [randn(B, H, K), randn(B, H, K), rand(B, H, K), randn(B, H, K)] * with_state
    return [randn(B, T, K), randn(K, 4), randn(K)] + [randn(B, 3, K)] * with_state


def run(name, backend, xs, steps=False):
    """All outputs of an operation, with resets, as one flat tuple; as steps if asked."""
    kind = name.split()[0]
    num, function, step = FUNCTIONS[kind]
    option = {"backend": backend} | OPTIONS.get(name, {})
    xs, state, reset = xs[:num], tuple(xs[num:]) or None, RESET.to(DEVICE)
    if kind == "conv" and state is not None:
        (state,) = state
    if steps:
        per_step = 5 if num == 5 else 1
        hs = []
        for t in range(T):
            now = [x[:, t] for x in xs[:per_step]] + xs[per_step:]
            h, state = step(*now, reset[:, t], state, **option)
            hs.append(h)
        h = torch.stack(hs, 1)
    else:
        chunks = {"chunk_size": 2} if num == 5 else {}
        h, state = function(*xs, reset, state, **option, **chunks)
    return h, *(state if isinstance(state, tuple) else (state,))


LOSSES = {
    "of h, linear": lambda h, *state: h.sum(),
    "of h": lambda h, *state: h.pow(3).sum(),
    "of the state": lambda h, *state: sum(s.square().sum() for s in state),
    "of all": lambda h, *state: h.sin().sum() * sum(s.sin().sum() for s in state),
}


def second(loss, xs):
    """Gradients of a function of the gradients, by ``torch.autograd.grad`` alone."""
    first = torch.autograd.grad(loss, xs, create_graph=True, allow_unused=True)
    of_first = sum(g.sin().sum() for g in first if g is not None)
    return torch.autograd.grad(of_first, xs, allow_unused=True, materialize_grads=True)


CASES = [(loss, carried, False) for loss, carried in zip(LOSSES, (0, 0, 1, 1), strict=True)]
CASES += [("of all", True, True)]


def cases():
    """All of them; most of those that Triton's interpreter runs take seconds and are slow."""
    for backend, name, case in product(DTYPES, NAMES, CASES):
        is_slow = backend == "triton" and case != CASES[3]
        yield pytest.param(backend, name, *case, marks=[pytest.mark.slow] * is_slow)


@pytest.mark.parametrize(("backend", "name", "loss", "carried", "steps"), [*cases()])
@pytest.mark.few(3, "triton")
def test_equal_those_of_the_equations(backend, name, loss, carried, steps):
    xs = inputs(name, DTYPES[backend], carried)
    got = second(LOSSES[loss](*run(name, backend, xs, steps)), xs)
    xs = [x.detach().double().requires_grad_() for x in xs]
    want = second(LOSSES[loss](*run(name, "reference", xs)), xs)
    tolerance = 1e-9 if backend == "torch" else 2e-4
    for a, b in zip(got, want, strict=True):
        scale = max(1.0, float(b.detach().abs().max()))
        torch.testing.assert_close(a.double(), b, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("name", NAMES)
def test_equal_finite_differences_of_the_first(name):
    xs = inputs(name, torch.float64, True)

    def gradients(xs):
        xs = [x.detach().requires_grad_() for x in xs]
        return torch.autograd.grad(LOSSES["of all"](*run(name, "torch", xs)), xs)

    directions = [torch.randn_like(x) for x in xs]
    h = 1e-6
    up = gradients([x + h * d for x, d in zip(xs, directions, strict=True)])
    down = gradients([x - h * d for x, d in zip(xs, directions, strict=True)])
    first = torch.autograd.grad(LOSSES["of all"](*run(name, "torch", xs)), xs, create_graph=True)
    along = sum((g * d).sum() for g, d in zip(first, directions, strict=True))
    for got, a, b in zip(torch.autograd.grad(along, xs), up, down, strict=True):
        torch.testing.assert_close(got, (a - b) / (2 * h), rtol=1e-5, atol=1e-6)


# torch's forward mode compiles its own formulas at its first use
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["mlstm", "slstm", "conv with silu"])
@pytest.mark.few(1)
def test_hold_for_every_route_of_torch_autograd_functional(name):
    xs = inputs(name, torch.float64)
    xs, v = tuple(x.detach() for x in xs), tuple(torch.ones_like(x) for x in xs)
    results = []
    for backend in ("reference", "torch"):

        def loss(*xs, backend=backend):
            return LOSSES["of h"](*run(name, backend, list(xs)))

        results.append(
            [
                hessian(loss, xs),
                hessian(loss, xs, strict=False, vectorize=True),
                hessian(loss, xs, vectorize=True, outer_jacobian_strategy="forward-mode"),
                hvp(loss, xs, v),
                vhp(loss, xs, v),
            ]
        )
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", ["mlstm", "slstm", "conv with silu"])
def test_reach_the_leaves_by_backward(name):
    xs = inputs(name, torch.float64)
    first = torch.autograd.grad(LOSSES["of h"](*run(name, "torch", xs)), xs, create_graph=True)
    sum(g.sin().sum() for g in first).backward()
    want = second(LOSSES["of h"](*run(name, "reference", xs)), xs)
    torch.testing.assert_close([x.grad for x in xs], list(want))


@pytest.mark.parametrize("name", ["mlstm", "slstm", "conv with silu"])
@pytest.mark.parametrize("backend", DTYPES)
@pytest.mark.few(1, "triton")
def test_third_derivatives_follow(backend, name):
    results = []
    for which in (backend, "reference"):
        xs = inputs(name, DTYPES[backend])
        loss = LOSSES["of h"](*run(name, which, xs))
        for _ in range(3):
            grads = torch.autograd.grad(loss, xs, create_graph=True, allow_unused=True)
            loss = sum(g.mean() for g in grads if g is not None)
        results.append([g.detach() for g in grads])
    tolerance = 1e-9 if backend == "torch" else 2e-3
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FUNCTIONS)  # torch's own silu does change it
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.few(1, "triton")
def test_create_graph_changes_no_gradient(name, backend):
    xs = inputs(name)
    kept, plain = (
        torch.autograd.grad(run(name, backend, xs)[0].sum(), xs, create_graph=graph)
        for graph in (True, False)
    )
    torch.testing.assert_close(kept, plain, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_inputs_made_of_one_another_are_told_apart(backend):
    q, k, _, i, _ = inputs("mlstm", DTYPES[backend])

    def loss(backend):
        made = torch.tanh(q)  # q twice, and an input that is made of another one
        return kernels.mlstm(q, q, made * k, i, i, backend=backend)[0].pow(3).sum()

    tolerance = 1e-9 if backend == "torch" else 1e-4
    got, want = (second(loss(which), [q, k, i]) for which in (backend, "reference"))
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["mlstm", "slstm", "conv"])
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.few(1, "triton")
def test_some_inputs_may_be_constants(name, backend):
    xs = [x.detach() for x in inputs(name, DTYPES[backend])]
    xs[1].requires_grad_()
    tolerance = 1e-9 if backend == "torch" else 1e-4
    got, want = (second(LOSSES["of h"](*run(name, b, xs)), [xs[1]]) for b in (backend, "reference"))
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["mlstm", "slstm", "conv"])
def test_hold_through_a_checkpoint(name):
    xs = inputs(name, torch.float64)

    def loss(backend, *xs):
        return LOSSES["of h"](*run(name, backend, list(xs)))

    got = second(checkpoint(loss, "torch", *xs, use_reentrant=False), xs)
    torch.testing.assert_close(got, second(loss("reference", *xs), xs))


@pytest.mark.parametrize("name", ["mlstm", "slstm", "conv"])
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_an_input_overwritten_before_the_backward_is_refused(name, backend):
    xs = inputs(name)
    changed = xs[0] * 1
    loss = run(name, backend, [changed, *xs[1:]])[0].sum()
    changed.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, xs)


def test_hold_for_the_ops_that_the_compiler_sees():
    xs = inputs("mlstm", torch.float64, True)
    h = chunkwise_op(*xs[:5], None, *xs[5:], 2, "sigmoid")[0]
    want, _ = kernels.mlstm(*xs[:5], None, tuple(xs[5:]), backend="reference")
    torch.testing.assert_close(second(h.sum(), xs), second(want.sum(), xs))
    xs = inputs("slstm", torch.float64)
    y = scan_op(*xs, None, None, None, None, None, "sigmoid")[0]
    want, _ = kernels.slstm(*xs, backend="reference")
    torch.testing.assert_close(second(y.sum(), xs), second(want.sum(), xs))


def test_hold_for_the_ops_of_triton():
    from xlstm_rl.kernels.conv1d.triton.ops import conv1d_op
    from xlstm_rl.kernels.mlstm.triton.ops import chunkwise_op, step_op
    from xlstm_rl.kernels.slstm.triton.ops import sequence_op

    xs = inputs("mlstm", with_state=True)
    now = [x[:, 0] for x in xs[:5]]
    state = tuple(xs[5:])
    pairs = [
        (chunkwise_op(*xs[:5], None, *state, 2, "sigmoid")[0], kernels.mlstm(*xs[:5], None, state)),
        (step_op(*now, None, *state, "sigmoid")[0], kernels.mlstm_step(*now, None, state)),
    ]
    for h, (want, _) in pairs:
        got, want = second(h.sum(), xs), second(want.sum(), xs)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    xs = inputs("slstm")
    y = sequence_op(*xs, None, None, None, None, None, "sigmoid", True)[0]
    want, _ = kernels.slstm(*xs, backend="reference")
    got, want = second(y.sum(), xs), second(want.sum(), xs)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    xs = inputs("conv")
    y = conv1d_op(*xs, None, None, "silu")[0]
    want = F.silu(kernels.causal_conv1d(*xs, backend="reference")[0])
    got, want = second(y.sum(), xs), second(want.sum(), xs)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_has_them(name):
    xs = inputs(name)
    out = run(name, "reference", xs)[0]
    grads = torch.autograd.grad(out.sum(), xs, create_graph=True)
    sum(g.square().sum() for g in grads).backward()
    assert any(x.grad is not None and x.grad.any() for x in xs)
