"""LSTM and GRU in C against their equations in float64, and against torch's own modules."""

import itertools
import random
from unittest import mock

import pytest
import torch

from xlstm_rl.kernels.native import recurrent as native
from xlstm_rl.kernels.recurrent.reference import sequence
from xlstm_rl.memory import MemoryConfig, make_memory

F32, F64 = torch.float32, torch.float64
NAN = float("nan")
KINDS = pytest.mark.parametrize("kind", ["lstm", "gru"])
STATES = {"lstm": 2, "gru": 1}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(kind, B, T, D, H, seed=0):
    """x, the state and the weights, and resets."""
    gen = torch.Generator().manual_seed(seed)
    G = {"lstm": 4, "gru": 3}[kind] * H
    shapes = [(B, T, D)] + [(B, H)] * STATES[kind] + [(G, D), (G, H), (G,), (G,)]
    xs = [
        torch.randn(s, generator=gen) * (1 if n <= STATES[kind] else H**-0.5)
        for n, s in enumerate(shapes)
    ]
    return xs, torch.rand(B, T, generator=gen) < 0.15


def run(function, kind, xs, reset, dtype, touch=None):
    """All outputs, and the gradients in all inputs of a loss on the outputs ``touch``."""
    xs, states = [x.detach().to(dtype, copy=True).requires_grad_() for x in xs], STATES[kind]
    y, after = function(xs[0], reset, tuple(xs[1 : 1 + states]), tuple(xs[1 + states :]))
    outs = [y, *after]
    gen = torch.Generator().manual_seed(7)
    weights = [torch.randn(o.shape, generator=gen).to(dtype) for o in outs]
    touch = range(len(outs)) if touch is None else touch
    loss = sum((outs[n] * weights[n]).sum() for n in touch)
    grads = torch.autograd.grad(loss, xs, allow_unused=True, materialize_grads=True)
    return [o.detach() for o in outs], grads


def hold(kind, xs, reset, touch=None):
    want = run(sequence, kind, xs, reset, F64, touch)
    got = run(native.recurrent_layer, kind, xs, reset, F32, touch)
    for a, b in zip(itertools.chain(*got), itertools.chain(*want), strict=True):
        assert a.shape == b.shape and a.isfinite().all()
        if b.numel():
            error = float((a.double() - b).abs().max()) / max(float(b.abs().max()), 1e-30)
            assert error < 1e-5


@KINDS
@pytest.mark.parametrize(
    ("B", "T", "D", "H"),
    [
        *((1, 1, 1, 1), (3, 7, 5, 6), (4, 30, 16, 16), (11, 20, 16, 24), (16, 3, 64, 64)),
        *((30, 9, 7, 33), (2, 60, 3, 17), (0, 3, 4, 4), (5, 2, 130, 12)),
    ],
)
def test_equals_the_equations_in_float64(kind, B, T, D, H):
    hold(kind, *make(kind, B, T, D, H))


@KINDS
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_resets_and_resets_alone(kind, share):
    xs, _ = make(kind, 4, 9, 5, 8)
    hold(kind, xs, None if share == 0 else torch.ones(4, 9, dtype=torch.bool))


@KINDS
@pytest.mark.parametrize("touch", [[0], [1], [-1]], ids=str)
def test_losses_on_the_output_and_on_the_final_state(kind, touch):
    hold(kind, *make(kind, 3, 12, 4, 8), touch)


@KINDS
@pytest.mark.parametrize("seed", range(15))
def test_random_shapes(kind, seed):
    pick = random.Random(seed)
    torch.set_num_threads(pick.randint(1, 3))
    sizes = pick.randint(1, 25), pick.randint(1, 30), pick.randint(1, 40), pick.randint(1, 70)
    hold(kind, *make(kind, *sizes, seed))


@KINDS
@pytest.mark.parametrize("B", [37, 16, 4, 3, 1])
@pytest.mark.parametrize("T", [25, 4, 3, 1])  # short ones, as steps, read the weights otherwise
def test_threads_do_not_change_a_bit(kind, B, T):
    xs, reset = make(kind, B, T, 20, 24)
    one = run(native.recurrent_layer, kind, xs, reset, F32)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        more = run(native.recurrent_layer, kind, xs, reset, F32)
        for a, b in zip(itertools.chain(*one), itertools.chain(*more), strict=True):
            assert torch.equal(a, b)


@KINDS
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("inplace", [False, True])
def test_the_memory_runs_natively_and_its_steps_equal_the_sequence(kind, layers, inplace):
    torch.manual_seed(0)
    memory = make_memory(MemoryConfig(kind=kind, width=24, num_blocks=layers))
    x, reset = torch.randn(5, 11, 24), torch.rand(5, 11) < 0.2
    state = tuple(torch.randn_like(s) for s in memory.initial_tensors(5))
    with torch.no_grad(), mock.patch.object(native, "run", wraps=native.run) as called:
        y, final = memory.forward_tensors(x, state, reset)
        assert called.call_count == layers
        given = tuple(s.clone() for s in state)
        for t in range(11):
            now, new = memory.step_tensors(x[:, t], given, reset[:, t], inplace=inplace)
            torch.testing.assert_close(now, y[:, t], rtol=1e-5, atol=1e-5)
            assert not inplace or all(a is s for a, s in zip(new, given, strict=True))
            given = new
        assert called.call_count == 12 * layers
    exact = memory.double()
    want, want_final = exact.forward_tensors(x.double(), tuple(s.double() for s in state), reset)
    for a, b, c in zip((y, *final), (want, *want_final), (y, *given), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(a, c, rtol=1e-5, atol=1e-5)


@KINDS
def test_equals_the_module_of_torch(kind):
    torch.manual_seed(0)
    memory = make_memory(MemoryConfig(kind=kind, width=16, num_blocks=2))
    x = torch.randn(3, 9, 16)
    y, final = memory.forward_tensors(x)
    want, state = memory.network(x)
    states = state if isinstance(state, tuple) else (state,)
    torch.testing.assert_close(y, want)
    for a, b in zip(final, states, strict=True):
        torch.testing.assert_close(a, b.transpose(0, 1))
    loss = torch.randn_like(y)
    weights = list(memory.parameters())
    ours = torch.autograd.grad((y * loss).sum(), weights)
    for a, b in zip(ours, torch.autograd.grad((want * loss).sum(), weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@KINDS
def test_second_derivatives(kind):
    xs, reset = make(kind, 2, 5, 3, 4)

    def twice(function, dtype):
        ys, states = [x.to(dtype).requires_grad_() for x in xs], STATES[kind]
        y, _ = function(ys[0], reset, tuple(ys[1 : 1 + states]), tuple(ys[1 + states :]))
        first = torch.autograd.grad(y.square().sum(), ys, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), ys)

    for a, b in zip(twice(native.recurrent_layer, F32), twice(sequence, F64), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@KINDS
def test_a_retained_graph_gives_the_same_gradients_again(kind):
    xs, reset = make(kind, 3, 20, 4, 8)
    xs, states = [x.requires_grad_() for x in xs], STATES[kind]

    def loss(scale):
        state, weights = tuple(xs[1 : 1 + states]), tuple(xs[1 + states :])
        return native.recurrent_layer(scale * xs[0], reset, state, weights)[0].sum()

    first = loss(1.0)
    one = torch.autograd.grad(first, xs, retain_graph=True)
    torch.autograd.grad(loss(2.0), xs)
    for a, b in zip(one, torch.autograd.grad(first, xs), strict=True):
        assert torch.equal(a, b)


@KINDS
def test_what_is_not_finite_ends_at_a_reset(kind):
    xs, _ = make(kind, 3, 9, 4, 8)
    reset = torch.zeros(3, 9, dtype=torch.bool)
    reset[:, 6] = True
    clean, _ = run(native.recurrent_layer, kind, xs, reset, F32)
    xs[0][0, 2, 1] = NAN
    xs[1][1] = NAN
    outs, _ = run(native.recurrent_layer, kind, xs, reset, F32)
    assert outs[0][0, 2:6].isnan().all() and outs[0][1, :6].isnan().all()
    assert torch.equal(outs[0][:, 6:], clean[0][:, 6:]) and torch.equal(outs[0][2], clean[0][2])
    assert all(torch.equal(a, b) for a, b in zip(outs[1:], clean[1:], strict=True))
    states = STATES[kind]
    x, state, weights = xs[0].requires_grad_(), tuple(xs[1 : 1 + states]), tuple(xs[1 + states :])
    y, _ = native.recurrent_layer(x, reset, state, weights)
    (dx,) = torch.autograd.grad(y[:, 6:].sum(), x)
    assert dx[:, 6:].isfinite().all() and dx[2].isfinite().all()
