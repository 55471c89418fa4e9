"""The whole sLSTM block in C against the block's equations in float64."""

import copy
import itertools
from unittest import mock

import pytest
import torch

from xlstm_rl.kernels.native import slstm_block as native
from xlstm_rl.kernels.native import slstm_block_step as native_step
from xlstm_rl.memory import MemoryConfig, make_memory
from xlstm_rl.memory.slstm_block import SLSTMBlock

F32, F64 = torch.float32, torch.float64
NAN = float("nan")
OPTIONS = {
    "default": {},
    "wide": {"width": 128},
    "no convolution": {"slstm_conv1d_kernel_size": 0},
    "no feed-forward": {"feedforward_proj_factor": 0.0},
    "neither": {"slstm_conv1d_kernel_size": 0, "feedforward_proj_factor": 0.0},
    "odd sizes": {"width": 30, "num_heads": 3, "round_to": 1, "conv1d_kernel_size": 3},
    "one odd head": {"width": 19, "num_heads": 1, "round_to": 7, "conv1d_kernel_size": 2},
    "many taps": {"width": 24, "conv1d_kernel_size": 9, "feedforward_activation": "sigmoid"},
    "exponential": {"forget_gate": "exponential", "feedforward_activation": "selu"},
    "biases": {"feedforward_bias": True, "feedforward_activation": "swish"},
    "relu": {"num_heads": 2, "feedforward_activation": "relu"},
    "relu^2": {"feedforward_bias": True, "feedforward_activation": "relu^2"},
}
EVERY = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
SOME = pytest.mark.parametrize("options", [OPTIONS["default"], OPTIONS["odd sizes"]], ids=str)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(options, B, T, with_state=True, seed=0):
    """A block off its initial weights, inputs, resets and a state of which one row is fresh."""
    torch.manual_seed(seed)
    config = MemoryConfig(**{"pattern": "s", "width": 64, "backend": "native", **options})
    block = SLSTMBlock(config, 2, 1)
    with torch.no_grad():
        for p in block.parameters():
            p.add_(0.1 * torch.randn_like(p))
    state = [torch.randn(B, *shape) for shape in block.state_shapes.values()]
    state[-2] = state[-2].abs() + 0.5
    for s in state:
        s[:1] = 0
    return (
        block,
        torch.randn(B, T, config.width),
        torch.rand(B, T) < 0.15,
        tuple(state) * with_state,
    )


def exact(block):
    """The same block in float64, as its equations say it."""
    block = copy.deepcopy(block).double()
    block._options = block._options._replace(backend="reference")
    return block


def run(block, x, reset, state, touch=None):
    dtype = block.norm.weight.dtype
    inputs = [t.to(dtype).requires_grad_() for t in (x, *state)]
    y, after = block(inputs[0], tuple(inputs[1:]) or None, reset)
    outs = [y, *after]
    gen = torch.Generator().manual_seed(7)
    weights = [torch.randn(o.shape, generator=gen).to(dtype) for o in outs]
    touch = range(len(outs)) if touch is None else touch
    loss = sum((outs[n] * weights[n]).sum() for n in touch)
    wanted = [*inputs, *block.parameters()]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return [o.detach() for o in outs], grads


def assert_close(got, want, tolerance, what, least=1e-30):
    assert got.shape == want.shape and got.isfinite().all(), what
    if want.numel():
        error = float((got.double() - want).abs().max()) / max(float(want.abs().max()), least)
        assert error <= tolerance, f"{what}: {error:.2g}"


def hold(block, x, reset, state, touch=None, tolerance=1e-5):
    with mock.patch.object(native, "_forward", wraps=native._forward) as called:
        got, grads = run(block, x, reset, state, touch)
    assert called.call_count == 1
    want, want_grads = run(exact(block), x, reset, state, touch)
    states = list(block.state_shapes)
    for name, a, b in zip(["y", *states], got, want, strict=True):
        assert_close(a, b, tolerance, name)
    names = ["x", *states[: len(state)], *(name for name, _ in block.named_parameters())]
    least = max(1e-2 * max(float(g.abs().max()) for g in want_grads if g.numel()), 1e-30)
    for name, a, b in zip(names, grads, want_grads, strict=True):
        assert_close(a, b, tolerance, f"gradient of {name}", least)


@EVERY
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize(("B", "T"), [(1, 1), (3, 9), (2, 3), (17, 20)])
def test_equals_the_equations_in_float64(options, B, T, with_state):
    hold(*make(options, B, T, with_state))


@SOME
@pytest.mark.parametrize("touch", [[0], [1], [2, 3, 4, 5], [5]], ids=str)
def test_losses_on_the_output_and_on_the_final_state(options, touch):
    hold(*make(options, 3, 12), touch)


@SOME
def test_long_sequences(options):
    hold(*make(options, 2, 300))


@SOME
def test_no_environments(options):
    hold(*make(options, 0, 3))


def test_large_inputs():
    block, x, reset, state = make({}, 3, 20)
    with torch.no_grad():
        block.input_weight.mul_(30)
    hold(block, x, reset, state, tolerance=1e-4)


def test_any_strides():
    block, x, reset, state = make({}, 3, 6)
    want = run(block, x, reset, state)
    for p in block.parameters():
        if p.dim() > 1:
            p.data = p.data.mT.contiguous().mT
    spread = tuple(torch.stack([s, s], -1)[..., 0] for s in state)
    got = run(block, x.mT.contiguous().mT, reset.t().contiguous().t(), spread)
    for a, b in zip(itertools.chain(*got), itertools.chain(*want), strict=True):
        assert torch.equal(a, b)


@EVERY
@pytest.mark.parametrize("B", [1, 3, 9])
@pytest.mark.parametrize("inplace", [False, True])
def test_steps_equal_the_sequence(options, B, inplace):
    block, x, reset, state = make(options, B, 13)
    with torch.no_grad(), mock.patch.object(native_step, "run", wraps=native_step.run) as called:
        y, final = block(x, state, reset)
        state = tuple(s.clone() for s in state)
        for t in range(13):
            before = [s.clone() for s in state]
            now, new = block.step(x[:, t].contiguous(), state, reset[:, t], inplace=inplace)
            torch.testing.assert_close(now, y[:, t], rtol=1e-5, atol=1e-5)
            if inplace:
                assert all(a is s for a, s in zip(new, state, strict=True))
            else:
                assert all(map(torch.equal, state, before))
            state = new
    assert called.call_count == 13
    for a, b in zip(state, final, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@SOME
def test_a_first_step_without_a_state(options):
    block, x, _, _ = make(options, 5, 1)
    with torch.no_grad():
        y, after = block(x, None, None)
        now, new = block.step(x[:, 0], None, None)
    for a, b in zip((now, *new), (y[:, 0], *after), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_step_sees_weights_that_were_changed_or_replaced(inplace):
    block, x, reset, state = make({}, 4, 1)
    x, reset = x[:, 0], reset[:, 0]
    with torch.no_grad():
        for change in (
            lambda: block.feed_forward.up.weight.mul_(2),
            lambda: setattr(block.norm.weight, "data", torch.rand(64)),
            lambda: setattr(
                block, "recurrent_weight", torch.nn.Parameter(torch.rand(4, 4, 16, 16))
            ),
        ):
            change()
            given = tuple(s.clone() for s in state)
            got, _ = block.step(x, given, reset, inplace=inplace)
            want, _ = exact(block).step(x.double(), tuple(s.double() for s in state), reset)
            torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


def test_inplace_tells_autograd():
    block, x, reset, state = make({}, 4, 1)
    versions = [s._version for s in state]
    with torch.no_grad():
        block.step(x[:, 0], state, reset[:, 0], inplace=True)
    assert all(s._version > v for s, v in zip(state, versions, strict=True))
    with torch.inference_mode():
        inside = tuple(s.clone() for s in state)
        block.step(x[:, 0], inside, reset[:, 0], inplace=True)


@SOME
def test_threads_do_not_change_a_bit(options):
    block, x, reset, state = make(options, 37, 25)
    one = run(block, x, reset, state)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        for a, b in zip(
            itertools.chain(*one), itertools.chain(*run(block, x, reset, state)), strict=True
        ):
            assert torch.equal(a, b)


def test_a_retained_graph_gives_the_same_gradients_again():
    block, x, reset, state = make({}, 4, 20)
    first = block(x, state, reset)[0].square().sum()
    weights = list(block.parameters())
    one = torch.autograd.grad(first, weights, retain_graph=True)
    for _ in range(3):  # of the same size in between, which may not take its memory
        torch.autograd.grad(block(x * 2, state, reset)[0].sum(), weights)
    for a, b in zip(one, torch.autograd.grad(first, weights), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(first, weights)


def test_parameters_without_gradients():
    block, x, reset, state = make({}, 3, 9)
    want = dict(
        zip(dict(block.named_parameters()), run(block, x, reset, state)[1][6:], strict=True)
    )
    frozen = ("norm.weight", "input_weight", "feed_forward.up.weight")
    for name, p in block.named_parameters():
        p.requires_grad_(name not in frozen)
    y, after = block(x, state, reset)
    gen = torch.Generator().manual_seed(7)
    sum((o * torch.randn(o.shape, generator=gen)).sum() for o in (y, *after)).backward()
    for name, p in block.named_parameters():
        assert (p.grad is None) == (name in frozen)
        if p.grad is not None:
            assert torch.equal(p.grad, want[name])


def test_a_backward_after_a_weight_was_changed_is_refused():
    block, x, reset, state = make({}, 3, 9)
    y, _ = block(x, state, reset)
    with torch.no_grad():
        block.recurrent_weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@SOME
def test_second_derivatives(options):
    block, x, reset, state = make(options, 2, 5)

    def twice(block):
        dtype = block.norm.weight.dtype
        given = x.to(dtype).requires_grad_()
        y, after = block(given, tuple(s.to(dtype) for s in state), reset)
        inputs = [given, *block.parameters()]
        first = torch.autograd.grad(y.square().sum() + after[2].sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), inputs)

    want = twice(exact(block))
    least = 1e-2 * max(float(g.abs().max()) for g in want)
    for n, (a, b) in enumerate(zip(twice(block), want, strict=True)):
        assert_close(a, b, 1e-4, str(n), least)


def test_transforms_take_the_equations():
    block, x, reset, _ = make({}, 3, 4)
    weights = dict(block.named_parameters())

    def loss(weights, x, reset):
        y, _ = torch.func.functional_call(block, weights, (x[None], None, reset[None]))
        return y.square().sum()

    per_row = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, reset)
    block(x, None, reset)[0].square().sum().backward()
    for name, p in block.named_parameters():
        torch.testing.assert_close(per_row[name].sum(0), p.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("with_state", [False, True])
@SOME
def test_opcheck(options, with_state):
    block, x, reset, state = make(options, 2, 5)
    weights = [None if w is None else w.detach().requires_grad_() for w in block._weights()]
    before = state if with_state else [None] * 5
    arguments = (x, reset, *before, *weights, *block._options[:3], True)
    torch.library.opcheck(native._op, arguments)


@pytest.mark.parametrize("options", [{}, {"slstm_conv1d_kernel_size": 0}], ids=str)
def test_compiled_equals_eager(options):
    block, x, reset, state = make(options, 2, 5)

    def loss(x, reset, state):
        y, after = block(x, state, reset)
        now, _ = block.step(y[:, 0], after, reset[:, 0])
        return now.square().sum() + y.sum() + sum(s.square().sum() for s in after)

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    weights = list(block.parameters())
    got, want = compiled(x, reset, state), loss(x, reset, state)
    torch.testing.assert_close(got, want)
    for a, b in zip(
        torch.autograd.grad(got, weights), torch.autograd.grad(want, weights), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_an_export_holds_no_native_code():
    memory = make_memory(MemoryConfig(pattern="s", width=16, num_heads=2, backend="auto"))
    x, reset = torch.randn(2, 3, 16), torch.zeros(2, 3, dtype=torch.bool)

    class Run(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.memory = memory

        def forward(self, x, reset):
            return self.memory.forward_tensors(x, None, reset)[0]

    program = torch.export.export(Run(), (x, reset))
    assert "native" not in str(program.graph)
    y = memory.forward_tensors(x, None, reset)[0]
    torch.testing.assert_close(program.module()(x, reset), y)


def test_what_is_not_finite_stays_in_its_row_behind_its_step_inside_its_episode():
    block, x, _, state = make({}, 4, 12)
    reset = torch.zeros(4, 12, dtype=torch.bool)
    reset[:, 8] = True
    clean, final = block(x, state, reset)
    x[0, 4, 3], x[1, 4, 0] = NAN, float("inf")
    spoiled = x.requires_grad_()
    y, after = block(spoiled, state, reset)
    assert y[:2, 4:8].isnan().flatten(1).any(1).all()
    for part in ((slice(2, 4),), (slice(None), slice(0, 4)), (slice(None), slice(8, 12))):
        torch.testing.assert_close(y[part], clean[part], rtol=0, atol=0)
    for a, b in zip(after, final, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    (dx,) = torch.autograd.grad(y[:, 8:].sum() + y[2:].sum(), [spoiled])
    assert dx[2:].isfinite().all() and dx[:, 8:].isfinite().all()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b, x, r, s: (b, x, r, tuple(t.double() for t in s)),
        lambda b, x, r, s: (b.double(), x, r, s),
        lambda b, x, r, s: (b, x, r[:, :1], s),
        lambda b, x, r, s: (b, x, r, tuple(t[:2] for t in s)),
        lambda b, x, r, s: (b, x[..., :3], r, s),
    ],
)
def test_what_does_not_fit_never_reaches_c(spoil):
    block, x, reset, state = spoil(*make({}, 3, 4))
    with mock.patch.object(native, "run") as called, pytest.raises((RuntimeError, ValueError)):
        block(x, state, reset)
    assert not called.called
