"""Every operation goes through the transforms of ``torch.func`` and forward-mode derivatives."""

import pytest
import torch
from torch import func
from torch.autograd import forward_ad

from xlstm_rl import kernels

# torch's forward mode compiles its own formulas at its first use
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)

B, T, H, K = 2, 4, 2, 3
RESET = torch.tensor([[False, False, True, False], [True, False, False, True]])
DTYPES = {"auto": torch.float64, "torch": torch.float64, "triton": torch.float32}


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def mlstm_case():
    return [randn(B, T, H, K) for _ in range(3)] + [randn(B, T, H), randn(B, T, H)]


OPERATIONS = {  # inputs, the sequence, the step, how many of the inputs have a time axis
    "mlstm": (mlstm_case, kernels.mlstm, kernels.mlstm_step, 5),
    "slstm": (
        lambda: [randn(B, T, 4, H, K), randn(4, H, K, K), randn(4, H, K)],
        kernels.slstm,
        kernels.slstm_step,
        1,
    ),
    "conv": (
        lambda: [randn(B, T, K), randn(K, 3), randn(K)],
        kernels.causal_conv1d,
        kernels.causal_conv1d_step,
        1,
    ),
}


def tensors(state):
    return state if isinstance(state, tuple) else (state,)


def sequence_of(name):
    """Inputs, and a function of them, of resets and a backend that gives all outputs."""
    make, run, _, _ = OPERATIONS[name]
    xs = make()
    state = tensors(run(*xs, backend="reference")[1])

    def outputs(*xs, reset=RESET, backend):
        start = tuple(s.to(xs[0].dtype) for s in state)
        option = {"activation": "silu"} if name == "conv" else {}
        start = start[0] if name == "conv" else start
        h, after = run(*xs, reset, start, backend=backend, **option)
        return h, *tensors(after)

    return tuple(xs), outputs


def step_of(name):
    """The same of a step, whose state is among the inputs."""
    make, run, run_step, timed = OPERATIONS[name]
    xs = make()
    state = tensors(run(*xs, backend="reference")[1])
    xs = [x[:, 0] for x in xs[:timed]] + xs[timed:]

    def outputs(*xs, reset=RESET[:, 0], backend, inplace=False):
        given, start = xs[: -len(state)], xs[-len(state) :]
        start = start[0] if name == "conv" else start
        h, after = run_step(*given, reset, start, backend=backend, inplace=inplace)
        return h, *tensors(after)

    return (*xs, *state), outputs


@pytest.fixture(params=OPERATIONS)
def operation(request):
    return sequence_of(request.param)


@pytest.fixture(params=OPERATIONS)
def step(request):
    return step_of(request.param)


@pytest.fixture(params=OPERATIONS)
def name(request):
    return request.param


@pytest.fixture(params=[sequence_of, step_of])
def function(request, name):
    return request.param(name)


def prepared(function, backend):
    """The inputs in the backend's dtype, the function and a scalar of all that it gives."""
    xs, outputs = function
    xs = tuple(x.to(DTYPES[backend]) for x in xs)

    def run(*xs, **options):
        return outputs(*xs, backend=backend, **options)

    def loss(*xs):
        return sum((y * y).sum() for y in run(*xs))

    return xs, run, loss


def double(xs):
    return tuple(x.double() for x in xs)


def assert_close(got, want, backend, tolerance=1e-9):
    if DTYPES[backend] == torch.float32:
        tolerance = 1e-3
    for a, b in zip(got, want, strict=True):
        scale = max(1.0, float(b.detach().abs().max()))
        torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("backend", DTYPES)
@pytest.mark.each_value("triton")
def test_grad_equals_that_of_autograd(function, backend):
    xs, _, loss = prepared(function, backend)
    got = func.grad(loss, argnums=tuple(range(len(xs))))(*xs)
    leaves = tuple(x.detach().double().requires_grad_() for x in xs)
    want = torch.autograd.grad(prepared(function, "auto")[2](*leaves), leaves)
    assert_close(got, want, backend)
    value, pull_back = func.vjp(loss, *xs)
    assert_close([value, *pull_back(torch.ones_like(value))], [loss(*xs), *want], backend)


@pytest.mark.parametrize("backend", DTYPES)
def test_forward_derivatives_equal_finite_differences(function, backend):
    xs, run, _ = prepared(function, backend)
    vs = tuple(torch.randn_like(x) for x in xs)
    exact = prepared(function, "auto")[1]
    h = 1e-6
    up = exact(*(x + h * v for x, v in zip(double(xs), double(vs), strict=True)))
    down = exact(*(x - h * v for x, v in zip(double(xs), double(vs), strict=True)))
    want = [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)]
    assert_close(func.jvp(run, xs, vs)[1], want, backend, 1e-6)
    with torch.no_grad(), forward_ad.dual_level():
        ys = run(*(forward_ad.make_dual(x, v) for x, v in zip(xs, vs, strict=True)))
        tangents = [forward_ad.unpack_dual(y).tangent for y in ys]
    assert_close(tangents, want, backend, 1e-6)


@pytest.mark.parametrize("backend", ["auto", "triton"])
@pytest.mark.each_value
def test_jacobians_and_hessians_agree_with_the_gradients(function, backend):
    xs, run, loss = prepared(function, backend)
    x, *others = xs
    forward = func.jacfwd(lambda x: run(x, *others)[0])(x)
    reverse = func.jacrev(lambda x: run(x, *others)[0])(x)
    assert_close([forward], [reverse], backend)

    exact = prepared(function, "auto")[2]
    hessian = func.hessian(lambda x: loss(x, *others))(x).reshape(x.numel(), x.numel())
    v, h = torch.randn_like(x).double(), 1e-5

    def gradient(x):
        x = x.requires_grad_()
        return torch.autograd.grad(exact(x, *double(others)), x)[0]

    x = x.double()
    want = (gradient(x + h * v) - gradient(x - h * v)).flatten() / (2 * h)
    assert_close([hessian.double() @ v.flatten()], [want], backend, 1e-5)
    nested = func.jacfwd(func.jacfwd(lambda x: loss(x, *others)))(xs[0])
    assert_close([nested.reshape(hessian.shape)], [hessian], backend)


@pytest.mark.parametrize("form", [sequence_of, step_of])
@pytest.mark.parametrize("recorded", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("backend", DTYPES)
@pytest.mark.each_value("triton")
def test_vmap_equals_a_loop(form, name, backend, recorded):
    xs, run, _ = prepared(form(name), backend)
    many = tuple(torch.stack([x, 0.5 * x, x.flip(0)]) for x in xs)
    of_all = RESET if form is sequence_of else RESET[:, 0]
    reset = torch.stack([torch.zeros_like(of_all), torch.ones_like(of_all), of_all])
    with torch.set_grad_enabled(recorded):
        got = func.vmap(lambda r, *xs: run(*xs, reset=r))(reset, *many)
        for j in range(3):
            want = run(*(x[j] for x in many), reset=reset[j])
            assert_close([y[j] for y in got], want, backend)
        got = func.vmap(lambda *xs: run(*xs))(*many)  # resets that all share
        assert_close([y[1] for y in got], run(*(x[1] for x in many)), backend)
        got = func.vmap(lambda x: run(x, *xs[1:]))(many[0])  # weights that all share
        assert_close([y[2] for y in got], run(many[0][2], *xs[1:]), backend)


@pytest.mark.parametrize("backend", DTYPES)
def test_vmap_of_grad_equals_a_loop(function, backend):
    xs, _, loss = prepared(function, backend)
    many = tuple(torch.stack([x, 0.5 * x]) for x in xs)
    which = tuple(range(len(xs)))
    got = func.vmap(func.grad(loss, argnums=which))(*many)
    for j in range(2):
        leaves = tuple(x[j].double().requires_grad_() for x in many)
        want = torch.autograd.grad(prepared(function, "auto")[2](*leaves), leaves)
        assert_close([g[j] for g in got], want, backend)


@pytest.mark.parametrize("backend", DTYPES)
@pytest.mark.each_value("triton")
def test_many_gradients_at_once_equal_a_loop(operation, backend):
    xs, run, _ = prepared(operation, backend)
    xs = tuple(x.requires_grad_() for x in xs)
    h = run(*xs)[0]
    vs = torch.randn(3, *h.shape, dtype=h.dtype)
    got = torch.autograd.grad(h, xs, vs, is_grads_batched=True, retain_graph=True)
    for j in range(3):
        want = torch.autograd.grad(h, xs, vs[j], retain_graph=True)
        assert_close([g[j] for g in got], want, backend)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_a_mapped_state_is_overwritten_in_place(step, backend):
    xs, run, _ = prepared(step, backend)
    many = tuple(torch.stack([x, 0.5 * x]) for x in xs)
    want = [run(*(x[j] for x in many)) for j in range(2)]
    with torch.no_grad():
        func.vmap(lambda *xs: run(*xs, inplace=True))(*many)
    num_states = len(want[0]) - 1
    for j in range(2):
        assert_close([x[j] for x in many[-num_states:]], want[j][1:], backend)


def test_a_state_that_is_not_mapped_is_not_overwritten(step):
    xs, run, _ = prepared(step, "torch")
    num_states = len(run(*xs)) - 1
    given, state = xs[:-num_states], xs[-num_states:]
    many = tuple(torch.stack([x, x]) for x in given)
    with torch.no_grad(), pytest.raises(RuntimeError, match="leave inplace=False"):
        func.vmap(lambda *xs: run(*xs, *state, inplace=True))(*many)


@pytest.mark.parametrize("backend", ["reference", "torch", "triton"])
def test_what_is_refused_without_a_transform_is_refused_within(backend):
    x, weight = torch.randn(2, B, T, 3), torch.randn(3, 2)
    with pytest.raises(ValueError, match="did you mean"):
        func.vmap(lambda x: kernels.causal_conv1d(x, weight, None, backend=backend + "x"))(x)
    with pytest.raises(ValueError, match="weight has shape"):
        func.vmap(lambda x: kernels.causal_conv1d(x, weight.T, None, backend=backend))(x)


@pytest.mark.few(1)
def test_a_compiled_transform_equals_an_eager_one(operation):
    xs, _, loss = prepared(operation, "auto")
    gradient = func.grad(loss)
    compiled = torch.compile(gradient, backend="aot_eager", fullgraph=True)
    assert_close([compiled(*xs)], [gradient(*xs)], "auto")


@pytest.mark.few(1)
def test_a_transform_of_the_compiled_equals_an_eager_one(operation):
    xs, _, loss = prepared(operation, "auto")
    compiled = torch.compile(loss, backend="aot_eager")
    compiled(*xs)  # a graph without the transform must not serve within it
    assert_close([func.grad(compiled)(*xs)], [func.grad(loss)(*xs)], "auto")
    _, got = func.jvp(compiled, xs, xs)
    assert_close([got], [func.jvp(loss, xs, xs)[1]], "auto")
