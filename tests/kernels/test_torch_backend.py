"""The torch executions against the reference: outputs, states and the gradient of every input."""

import pytest
import torch

from xlstm_rl import kernels

F64 = torch.float64


def make_mlstm(B, T, H, K, V, with_state, seed=0, gate_scale=1.0, dtype=F64):
    gen = torch.Generator().manual_seed(seed)
    shapes = [(B, T, H, K), (B, T, H, K), (B, T, H, V), (B, T, H), (B, T, H)]
    if with_state:
        shapes += [(B, H, K, V), (B, H, K), (B, H)]
    xs = [torch.randn(s, generator=gen, dtype=F64) for s in shapes]
    xs[3], xs[4] = xs[3] * gate_scale, xs[4] * gate_scale
    return [x.to(dtype).requires_grad_() for x in xs]


def make_slstm(B, T, H, D, with_state, seed=0, dtype=F64):
    gen = torch.Generator().manual_seed(seed)
    shapes = [(B, T, 4, H, D), (4, H, D, D), (4, H, D)] + [(B, H, D)] * 4 * with_state
    xs = [torch.randn(s, generator=gen, dtype=F64) for s in shapes]
    if with_state:
        xs[5] = xs[5].abs() + 0.5  # a normaliser
        for x in xs[3:]:
            x[0] = 0  # one row is fresh
    return [x.to(dtype).requires_grad_() for x in xs]


def make_conv(B, T, C, W, with_state, bias=True, seed=0, dtype=F64):
    gen = torch.Generator().manual_seed(seed)
    shapes = [(B, T, C), (C, W)] + [(C,)] * bias + [(B, W - 1, C)] * with_state
    xs = [torch.randn(s, generator=gen, dtype=F64) for s in shapes]
    return [x.to(dtype).requires_grad_() for x in xs]


def call_mlstm(xs, reset, **kwargs):
    h, state = kernels.mlstm(*xs[:5], reset, tuple(xs[5:]) or None, **kwargs)
    return (h, *state)


def call_slstm(xs, reset, **kwargs):
    h, state = kernels.slstm(*xs[:3], reset, tuple(xs[3:]) or None, **kwargs)
    return (h, *state)


def call_conv(xs, reset, **kwargs):
    rest = list(xs[2:])
    bias = rest.pop(0) if rest and rest[0].dim() == 1 else None
    return kernels.causal_conv1d(*xs[:2], bias, reset, *(rest or [None]), **kwargs)


def make_reset(kind, B, T):
    if kind == "none":
        return None
    reset = torch.zeros(B, T, dtype=torch.bool)
    if kind == "all":
        reset[:] = True
    elif kind == "first":
        reset[:, 0] = True
    elif kind == "last":
        reset[:, -1] = True
    elif kind == "consecutive":
        reset[0, T // 3 : T // 3 + 3] = True
    elif kind == "random":
        reset = torch.rand(B, T, generator=torch.Generator().manual_seed(T)) < 0.15
    return reset


def outputs_and_grads(call, xs, reset, touch, **kwargs):
    outs = call(xs, reset, **kwargs)
    gen = torch.Generator().manual_seed(7)
    weights = [torch.randn(o.shape, generator=gen, dtype=F64) for o in outs]
    loss = sum((outs[n] * weights[n]).sum() for n in touch)
    grads = torch.autograd.grad(loss, xs, allow_unused=True, materialize_grads=True)
    return outs, grads


def assert_same(call, xs, reset, touch, tol=1e-9, **kwargs):
    chunk = kwargs.pop("chunk_size", None)
    more = {} if chunk is None else {"chunk_size": chunk}
    want = outputs_and_grads(call, xs, reset, touch, backend="reference", **kwargs)
    got = outputs_and_grads(call, xs, reset, touch, backend="torch", **kwargs, **more)
    for a, b in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=tol, atol=tol)


RESETS = ["none", "all", "first", "last", "consecutive", "random"]


@pytest.mark.parametrize("T", [1, 7, 63, 64, 65, 200])
def test_mlstm_any_length(T):
    for with_state in (False, True):
        xs = make_mlstm(2, T, 2, 3, 4, with_state)
        assert_same(call_mlstm, xs, make_reset("random", 2, T), range(4))


@pytest.mark.parametrize("kind", RESETS)
@pytest.mark.parametrize("forget_gate", kernels.dispatch.checks.FORGET_GATES)
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.each_value
def test_mlstm_any_reset(kind, forget_gate, with_state):
    xs = make_mlstm(3, 21, 2, 3, 5, with_state)
    reset = make_reset(kind, 3, 21)
    for touch in ([0], [1], [3], range(4)):
        assert_same(call_mlstm, xs, reset, touch, forget_gate=forget_gate, chunk_size=8)


@pytest.mark.parametrize(("K", "V"), [(3, 16), (16, 3), (24, 24)])
@pytest.mark.parametrize("chunk_size", [1, 5, 64])
def test_mlstm_any_head_and_chunk_size(K, V, chunk_size):
    xs = make_mlstm(2, 19, 1, K, V, True)
    assert_same(call_mlstm, xs, make_reset("random", 2, 19), range(4), chunk_size=chunk_size)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("sign", [(80, 80), (80, -80), (-80, 80), (-80, -80)])
def test_mlstm_extreme_gates_stay_finite_and_right(sign, dtype):
    xs = [x.detach() for x in make_mlstm(2, 40, 2, 4, 4, True, dtype=dtype)]
    xs[3], xs[4] = xs[3] + sign[0], xs[4] + sign[1]
    xs = [x.requires_grad_() for x in xs]
    reset = make_reset("random", 2, 40)
    assert_same(call_mlstm, xs, reset, range(4), tol=1e-9 if dtype == F64 else 2e-3)


def test_mlstm_mixed_extreme_gates():
    xs = make_mlstm(2, 70, 2, 4, 4, True, gate_scale=60.0)
    assert_same(call_mlstm, xs, make_reset("random", 2, 70), range(4))
    out = kernels.mlstm(*[x.detach().float() for x in xs[:5]], chunk_size=16)[0]
    want = kernels.mlstm(*[x.detach().float() for x in xs[:5]], backend="reference")[0]
    torch.testing.assert_close(out, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", RESETS)
@pytest.mark.parametrize("forget_gate", kernels.dispatch.checks.FORGET_GATES)
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.each_value
def test_slstm_any_reset(kind, forget_gate, with_state):
    xs = make_slstm(3, 12, 2, 3, with_state)
    reset = make_reset(kind, 3, 12)
    for touch in ([0], [1], [2], [4], range(5)):
        assert_same(call_slstm, xs, reset, touch, forget_gate=forget_gate)


@pytest.mark.parametrize(("T", "D"), [(1, 16), (7, 24), (64, 3), (130, 3)])
def test_slstm_any_length_and_head_size(T, D):
    assert_same(call_slstm, make_slstm(2, T, 2, D, True), make_reset("random", 2, T), range(5))


@pytest.mark.parametrize("sign", [(80, 80), (80, -80), (-80, 80), (-80, -80)])
def test_slstm_extreme_gates_stay_finite_and_right(sign):
    xs = [x.detach() for x in make_slstm(2, 30, 2, 4, False)]
    xs[0][:, :, 0] += sign[0]
    xs[0][:, :, 1] += sign[1]
    for dtype, tol in ((F64, 1e-9), (torch.float32, 1e-3)):
        ys = [x.to(dtype).requires_grad_() for x in xs]
        assert_same(call_slstm, ys, make_reset("random", 2, 30), range(5), tol=tol)


@pytest.mark.parametrize("kind", RESETS)
@pytest.mark.parametrize("W", [1, 2, 4])
def test_conv_any_reset(kind, W):
    for T, with_state, bias in (
        (1, True, True),
        (3, True, False),
        (20, True, True),
        (20, False, True),
    ):
        xs = make_conv(3, T, 5, W, with_state, bias)
        touch = [0, 1] if W > 1 else [0]
        assert_same(call_conv, xs, make_reset(kind, 3, T), touch)


@pytest.mark.parametrize("with_state", [False, True])
def test_gradcheck(with_state):
    reset = torch.tensor([[False, False, True, False, False], [False] * 5])
    cases = [
        (call_mlstm, make_mlstm(2, 5, 1, 2, 3, with_state), {"chunk_size": 2}),
        (call_slstm, make_slstm(2, 5, 1, 2, False), {}),
        (call_conv, make_conv(2, 5, 2, 3, with_state), {}),
    ]
    for call, xs, more in cases:
        torch.autograd.gradcheck(lambda *a, call=call, more=more: call(a, reset, **more), xs)


def test_strided_inputs():
    xs = make_mlstm(2, 20, 2, 4, 6, True)
    strided = [x.detach().movedim(0, -1).contiguous().movedim(-1, 0) for x in xs]
    assert not strided[0].is_contiguous()
    reset = make_reset("random", 20, 2).t()
    assert_same(call_mlstm, [x.requires_grad_() for x in strided], reset, range(4))
    xs = make_slstm(2, 9, 2, 4, True)
    strided = [x.detach().movedim(0, -1).contiguous().movedim(-1, 0) for x in xs]
    assert_same(call_slstm, [x.requires_grad_() for x in strided], reset[:, :9], range(5))
    xs = make_conv(2, 9, 4, 3, True)
    strided = [x.detach().movedim(0, -1).contiguous().movedim(-1, 0) for x in xs]
    assert_same(call_conv, [x.requires_grad_() for x in strided], reset[:, :9], range(2))


@pytest.mark.parametrize(
    ("call", "xs"),
    [
        (call_mlstm, make_mlstm(2, 40, 2, 8, 8, True)),
        (call_slstm, make_slstm(2, 40, 2, 8, True)),
        (call_conv, make_conv(2, 40, 8, 4, True)),
    ],
    ids=["mlstm", "slstm", "conv"],
)
def test_lower_precision_stays_close(call, xs):
    reset = make_reset("random", 2, 40)
    want = call(xs, reset, backend="reference")
    for dtype, tol in ((torch.float32, 2e-4), (torch.bfloat16, 0.15)):
        low = [x.detach().to(dtype).requires_grad_() for x in xs]
        got = call(low, reset, backend="torch")
        assert got[0].dtype == dtype
        torch.testing.assert_close(got[0].double(), want[0], rtol=tol, atol=tol)
        grads = torch.autograd.grad(got[0].float().sum(), low, allow_unused=True)
        assert all(g is None or (g.dtype == dtype and g.isfinite().all()) for g in grads)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_autocast_changes_nothing(backend):
    m, s = make_mlstm(2, 9, 2, 4, 4, True, dtype=torch.float32), make_slstm(2, 9, 2, 4, True)
    s = [x.float() for x in s]
    want = call_mlstm(m, None, backend=backend) + call_slstm(s, None, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = call_mlstm(m, None, backend=backend) + call_slstm(s, None, backend=backend)
        with torch.no_grad():
            step = kernels.mlstm_step(*(x[:, 0] for x in m[:5]), None, tuple(m[5:]))[0]
            kernels.slstm_step(s[0][:, 0], *s[1:3], None, tuple(s[3:]))
    assert step.dtype == torch.float32
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_slstm_computes_halves_in_float32(dtype):
    B, T, H, D = 2, 40, 2, 16
    gen = torch.Generator().manual_seed(0)
    sizes = (B, T, 4, H, D), (4, H, D, D), (4, H, D)
    low = [torch.randn(size, generator=gen).mul(0.5).to(dtype) for size in sizes]
    _, state = kernels.slstm(*low, backend="torch")
    _, want = kernels.slstm(*(x.double() for x in low), backend="reference")
    for s, w in zip(state, want, strict=True):
        assert s.dtype == torch.float32
        assert float((s - w).norm() / w.norm()) < 1e-5
