"""The mLSTM's Triton kernels: outputs, states and the gradient of every input."""

from functools import partial

import pytest
import torch

from xlstm_rl import kernels

F64 = torch.float64
HALVES = [torch.bfloat16, torch.float16]
RESETS = ["none", "all", "first", "last", "consecutive", "random"]


def make_inputs(B, T, H, K, V, with_state=True, seed=0, gates=(0.0, 0.0), gate_scale=1.0):
    """Random inputs whose `q . n` is seldom near 0: dividing by that would magnify any rounding."""
    gen = torch.Generator().manual_seed(seed)
    shapes = [(B, T, H, K), (B, T, H, K), (B, T, H, V), (B, T, H), (B, T, H)]
    if with_state:
        shapes += [(B, H, K, V), (B, H, K), (B, H)]
    xs = [torch.randn(s, generator=gen, dtype=F64) for s in shapes]
    sign = torch.randn(B, T, H, 1, generator=gen, dtype=F64).sign()
    xs[0], xs[1] = (xs[0] / 2 + 0.5) * sign, xs[1] / 2 + 0.5
    xs[3] = xs[3] * gate_scale + gates[0]
    xs[4] = xs[4] * gate_scale + gates[1]
    if with_state:
        xs[6] = xs[6] / 2 + 0.5
    return xs


@pytest.fixture
def make_reset(make_reset):
    """Longer episodes, which a chunk does not end."""
    return partial(make_reset, density=0.1)


def call(xs, reset, **kwargs):
    h, state = kernels.mlstm(*xs[:5], reset, tuple(xs[5:]) or None, **kwargs)
    return (h, *state)


def call_step(xs, reset, **kwargs):
    h, state = kernels.mlstm_step(*xs[:5], reset, tuple(xs[5:]) or None, **kwargs)
    return (h, *state)


@pytest.mark.parametrize("T", [1, 15, 63, 65, 130])
@pytest.mark.few(3)
def test_any_length(hold_to_reference, make_reset, T):
    for kind in ("none", "random") if T < 64 else ("random",):
        xs = make_inputs(2, T, 1, 16, 16, with_state=kind == "none" or T == 130)
        hold_to_reference(call, xs, make_reset(kind, 2, T))


@pytest.mark.slow
@pytest.mark.parametrize("T", [1, 15, 63, 65, 130])
@pytest.mark.parametrize("size", [3, 16, 24, 48, 80])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_length_and_head_size(hold_to_reference, make_reset, T, size, dtype):
    dtypes = [dtype] * 5 + [torch.float32] * 3
    for kind in RESETS:
        xs = make_inputs(2, T, 2, size, size)
        hold_to_reference(call, xs, make_reset(kind, 2, T), dtypes=dtypes)


@pytest.mark.slow
@pytest.mark.parametrize(("K", "V"), [(256, 256), (129, 200), (256, 1), (1, 256)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_largest_heads(hold_to_reference, make_reset, K, V, dtype):
    xs = make_inputs(1, 70, 1, K, V)
    dtypes = [dtype] * 5 + [torch.float32] * 3
    hold_to_reference(call, xs, make_reset("random", 1, 70), dtypes=dtypes)


@pytest.mark.parametrize(("K", "V"), [(3, 3), (1, 24), (24, 48), (80, 16), (16, 80)])
@pytest.mark.few(2)
def test_any_head_size(hold_to_reference, make_reset, K, V):
    xs = make_inputs(2, 37, 1, K, V)
    hold_to_reference(call, xs, make_reset("random", 2, 37))


@pytest.mark.parametrize("kind", RESETS)
@pytest.mark.parametrize("with_state", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.few(3)
def test_any_reset(hold_to_reference, make_reset, kind, with_state):
    xs = make_inputs(2, 41, 1, 16, 16, with_state)

    def run(xs, reset, backend):
        return call(xs, reset, backend=backend, chunk_size=16)

    hold_to_reference(run, xs, make_reset(kind, 2, 41))


@pytest.mark.parametrize("forget_gate", kernels.dispatch.checks.FORGET_GATES)
@pytest.mark.parametrize("touch", [[0], [1], [2], [3]])
@pytest.mark.each_value
def test_any_loss(hold_to_reference, make_reset, forget_gate, touch):
    def run(xs, reset, backend):
        return call(xs, reset, backend=backend, forget_gate=forget_gate, chunk_size=16)

    kind = "none" if forget_gate == "exponential" else "random"
    xs = make_inputs(2, 25, 1, 16, 16, with_state=kind == "none")
    hold_to_reference(run, xs, make_reset(kind, 2, 25), touch=touch)


@pytest.mark.parametrize(("chunk_size", "T"), [(1, 5), (5, 21), (33, 40), (1000, 40)])
@pytest.mark.few(2)
def test_any_chunk_size(hold_to_reference, make_reset, chunk_size, T):
    xs = make_inputs(2, T, 1, 16, 16)

    def run(xs, reset, backend):
        return call(xs, reset, backend=backend, chunk_size=chunk_size)

    hold_to_reference(run, xs, make_reset("random", 2, T))


@pytest.mark.parametrize("forget_gate", kernels.dispatch.checks.FORGET_GATES)
@pytest.mark.parametrize("gates", [(80, 80), (80, -80), (-80, 80), (-80, -80)])
@pytest.mark.each_value
def test_extreme_gates(hold_to_reference, make_reset, gates, forget_gate):
    def run(xs, reset, backend):
        return call(xs, reset, backend=backend, forget_gate=forget_gate)

    # with seed 0 a row's q . n is so near 0 that the float32 reference itself is off by 3e-5
    xs = make_inputs(2, 40, 1, 16, 16, gates=gates, seed=1)
    hold_to_reference(run, xs, make_reset("random", 2, 40))


def test_mixed_extreme_gates(hold_to_reference, make_reset):
    xs = make_inputs(2, 70, 1, 16, 16, gate_scale=60.0)
    hold_to_reference(call, xs, make_reset("random", 2, 70))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.few(1)
def test_half_precision(hold_to_reference, make_reset, dtype):
    for gate_dtype in (dtype, torch.float32):
        dtypes = [dtype] * 3 + [gate_dtype] * 2 + [torch.float32] * 3
        xs = make_inputs(2, 40, 1, 24, 16)
        hold_to_reference(call, xs, make_reset("random", 2, 40), dtypes=dtypes)


def test_float16_of_large_inputs_stays_finite(hold_to_reference):
    xs = make_inputs(1, 40, 1, 64, 16, with_state=False, gates=(0.0, 5.0))
    xs[:2] = (32.0 * x for x in xs[:2])  # q . k reaches 70,000, float16 65,504
    xs[2] = 4.0 * xs[2]  # and the gradients stay above what float16 rounds to nothing
    dtypes = [torch.float16] * 3 + [torch.float32] * 2
    hold_to_reference(call, xs, None, dtypes=dtypes, touch=[0])


@pytest.mark.slow
def test_strided_inputs(hold_to_reference, make_reset):
    xs = make_inputs(2, 20, 3, 8, 16)
    last = [x.movedim(0, -1).contiguous().movedim(-1, 0) for x in xs]
    inner = [torch.stack([x, x], -2).select(-2, 0) if x.dim() == 4 else x for x in xs]
    reset = make_reset("random", 20, 2).t()
    for ys in (last, inner):
        assert not ys[0].is_contiguous()
        hold_to_reference(call, ys, reset)


@pytest.mark.parametrize("with_state", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("forget_gate", kernels.dispatch.checks.FORGET_GATES)
@pytest.mark.few(1)
def test_step(hold_to_reference, with_state, forget_gate):
    def run(xs, reset, backend):
        return call_step(xs, reset, backend=backend, forget_gate=forget_gate)

    reset = torch.tensor([True, False, False])
    for K, V in ((3, 80), (24, 48)):
        xs = make_inputs(3, 1, 2, K, V, with_state)
        xs = [x[:, 0] for x in xs[:5]] + xs[5:]
        hold_to_reference(run, xs, None)
        for touch in ([0], [1], [2], [3]) if K == 3 else (None,):
            hold_to_reference(run, xs, reset, touch=touch)
    for dtype in HALVES:
        dtypes = [dtype] * 5 + [torch.float32] * (3 * with_state)
        hold_to_reference(run, xs, reset, dtypes=dtypes)


@pytest.mark.parametrize("forget_gate", kernels.dispatch.checks.FORGET_GATES)
@pytest.mark.parametrize("gates", [(80, 80), (80, -80), (-80, 80), (-80, -80)])
@pytest.mark.each_value
def test_step_with_extreme_gates(hold_to_reference, gates, forget_gate):
    def run(xs, reset, backend):
        return call_step(xs, reset, backend=backend, forget_gate=forget_gate)

    xs = make_inputs(3, 1, 2, 16, 16, gates=gates)
    xs = [x[:, 0] for x in xs[:5]] + xs[5:]
    hold_to_reference(run, xs, torch.tensor([True, False, False]))


def test_step_in_place_overwrites_the_state(device):
    # so many programs that their warps run apart: none may read what another has overwritten
    B = 4096 if device.type == "cuda" else 3
    xs = [x.float().to(device) for x in make_inputs(B, 1, 2, 24, 40)]
    xs, reset = [x[:, 0] for x in xs[:5]] + xs[5:], torch.arange(B, device=device) % 3 == 0
    want_h, want = kernels.mlstm_step(*xs[:5], reset, tuple(xs[5:]), backend="triton")
    transposed = xs[5].transpose(2, 3).contiguous().transpose(2, 3)  # no copy may be left behind
    for C in (xs[5].clone(), transposed):
        state = (C, xs[6].clone(), xs[7].clone())
        h, after = kernels.mlstm_step(*xs[:5], reset, state, backend="triton", inplace=True)
        assert torch.equal(h, want_h)
        for a, s, w in zip(after, state, want, strict=True):
            assert a is s
            assert torch.equal(s, w)


def test_steps_equal_the_sequence(device, make_reset):
    xs = [x.float().to(device) for x in make_inputs(2, 21, 2, 16, 24)]
    reset, state, hs = make_reset("random", 2, 21).to(device), tuple(xs[5:]), []
    for t in range(21):
        step = [x[:, t] for x in xs[:5]]
        h, state = kernels.mlstm_step(*step, reset[:, t], state, backend="triton")
        hs.append(h)
    want_h, want = kernels.mlstm(*xs[:5], reset, tuple(xs[5:]), backend="triton")
    torch.testing.assert_close(torch.stack(hs, 1), want_h, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, want, rtol=1e-4, atol=1e-5)


def test_not_even_a_nan_survives_a_reset(device):
    xs = [x.float().to(device) for x in make_inputs(2, 20, 1, 16, 16)]
    state = tuple(torch.full_like(x, torch.nan) for x in xs[5:])
    for at in (0, 3, 17):
        reset = torch.zeros(2, 20, dtype=torch.bool, device=device)
        reset[:, at] = True
        h, after = kernels.mlstm(*xs[:5], reset, state, backend="triton")
        assert h[:, at:].isfinite().all()
        assert all(s.isfinite().all() for s in after)


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.few(1)
def test_opcheck(device, with_state):
    from xlstm_rl.kernels.mlstm.triton import ops

    torch.use_deterministic_algorithms(False)  # opcheck compares buffers that nobody reads
    xs = [x.float().to(device) for x in make_inputs(1, 5, 1, 4, 3, with_state)]
    xs = [x.requires_grad_() for x in xs]
    reset = torch.tensor([[False, True, False, False, True]], device=device)
    state = xs[5:] or [None] * 3
    torch.library.opcheck(ops.chunkwise_op, (*xs[:5], reset, *state, 64, "sigmoid"))
    step = [x[:, 0].detach().requires_grad_() for x in xs[:5]]
    torch.library.opcheck(ops.step_op, (*step, reset[:, 0], *state, "sigmoid"))


@pytest.mark.slow
def test_compiled_memory_equals_eager(device):
    from xlstm_rl.memory import MemoryConfig, make_memory

    config = MemoryConfig(pattern="ms", width=16, num_heads=1, round_to=16, backend="triton")
    memory = make_memory(config).to(device)
    x = torch.randn(1, 6, 16, device=device)
    reset = torch.tensor([[False, False, True, False, False, False]], device=device)

    def run(x, leaves):
        y, after = memory.forward_tensors(x, leaves, reset)
        return y.square().sum() + sum(s.square().sum() for s in after)

    leaves = memory.initial_tensors(1)
    want = run(x, leaves)
    got = torch.compile(run, backend="aot_eager", fullgraph=True)(x, leaves)
    torch.testing.assert_close(got, want)
    weights = list(memory.parameters())
    ours, theirs = (torch.autograd.grad(loss, weights) for loss in (got, want))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
