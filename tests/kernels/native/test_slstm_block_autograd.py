"""Threads, graphs, second derivatives, compilation and broken numbers of the sLSTM block in C."""

import itertools
from unittest import mock

import pytest
import torch

from xlstm_rl.kernels.native import slstm_block as native
from xlstm_rl.memory import MemoryConfig, make_memory

from .slstm_block_cases import NAN, SOME, assert_close, exact, make, run

pytestmark = pytest.mark.usefixtures("one_thread")


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
@pytest.mark.each_value
def test_opcheck(options, with_state):
    block, x, reset, state = make(options, 2, 5)
    weights = [None if w is None else w.detach().requires_grad_() for w in block._weights()]
    before = state if with_state else [None] * 5
    arguments = (x, reset, *before, *weights, *block._options[:3], True)
    torch.library.opcheck(native._op, arguments)


@pytest.mark.parametrize("options", [{}, {"slstm_conv1d_kernel_size": 0}], ids=str)
@pytest.mark.slow
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
        scale = float(b.abs().max())  # the compiled step is torch's
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * max(scale, 1.0))


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
