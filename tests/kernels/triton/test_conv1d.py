"""The convolution's Triton kernels against the reference, sequences and steps."""

import pytest
import torch

from xlstm_rl import kernels
from xlstm_rl.kernels import launch

pytest.importorskip("triton")

from xlstm_rl.kernels.conv1d.triton import ops

F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16
RESETS = ["none", "all", "first", "last", "consecutive", "random"]


def make_inputs(B, T, C, W, with_state=True, with_bias=True):
    gen = torch.Generator().manual_seed(B + T + C + W)
    shapes = [(B, T, C), (C, W)] + [(C,)] * with_bias + [(B, W - 1, C)] * with_state
    return [torch.randn(s, generator=gen, dtype=F64) for s in shapes]


def convolve(activation, with_bias=True):
    def call(xs, reset, backend):
        x, weight, *rest = xs
        bias = rest.pop(0) if with_bias else None
        state = rest.pop(0) if rest else None
        return kernels.causal_conv1d(x, weight, bias, reset, state, activation, backend)

    return call


@pytest.mark.parametrize("kind", RESETS)
@pytest.mark.parametrize("W", [1, pytest.param(2, marks=pytest.mark.slow), 4])
@pytest.mark.each_value
def test_any_reset(hold_to_reference, make_reset, kind, W):
    hold_to_reference(convolve("silu"), make_inputs(3, 15, 5, W), make_reset(kind, 3, 15))


# C = 80 has tiles of 32 steps, C = 200 two tiles of channels
@pytest.mark.parametrize(
    ("T", "C", "W"),
    [
        (1, 5, 4),
        (2, 80, 4),
        (3, 1, 7),
        (3, 5, 2),
        (65, 80, 4),
        (65, 1, 1),
        (130, 80, 2),
        (33, 200, 4),
    ],
)
@pytest.mark.each_value
@pytest.mark.few(4)
def test_any_size(hold_to_reference, make_reset, T, C, W):
    hold_to_reference(convolve("silu"), make_inputs(2, T, C, W), make_reset("random", 2, T))


@pytest.mark.parametrize(
    ("activation", "with_state", "with_bias", "touch"),
    [
        ("none", True, True, [0]),
        ("none", True, False, [0, 1]),
        ("none", False, True, [0, 1]),
        ("silu", True, False, [0]),
        ("silu", False, False, [0, 1]),
        ("silu", False, True, [0]),
        ("none", True, True, [1]),
        ("silu", False, True, [1]),
    ],
)
def test_any_call(hold_to_reference, make_reset, activation, with_state, with_bias, touch):
    T = 2 if touch == [1] else 19  # a state that also keeps some of the state before it
    xs = make_inputs(2, T, 5, 4, with_state, with_bias)
    hold_to_reference(convolve(activation, with_bias), xs, make_reset("random", 2, T), touch=touch)


@pytest.mark.parametrize(
    ("dtype", "weights", "activation"),
    [
        (BF16, "same", "silu"),
        (BF16, "float32", "silu"),
        (F16, "same", "none"),
        (F16, "float32", "silu"),
    ],
)
def test_half_precision(hold_to_reference, make_reset, dtype, weights, activation):
    w = dtype if weights == "same" else F32
    xs, reset = make_inputs(2, 40, 16, 4), make_reset("random", 2, 40)
    hold_to_reference(convolve(activation), xs, reset, [dtype, w, w, dtype])


def test_strided_inputs(hold_to_reference, make_reset):
    xs = make_inputs(2, 20, 5, 4)
    reset = make_reset("random", 20, 2).t()
    turned = [x.movedim(0, -1).contiguous().movedim(-1, 0) for x in xs]
    hold_to_reference(convolve("silu"), turned, reset)
    halves = [torch.cat([x, x], -1).chunk(2, -1)[0] for x in xs]
    hold_to_reference(convolve("silu"), halves, reset)
    backwards = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (xs[0], xs[3])]
    hold_to_reference(convolve("silu"), [backwards[0], *xs[1:3], backwards[1]], reset)


def test_expanded_inputs_and_gradients(device):
    x, w, b, _ = (x.float().to(device) for x in make_inputs(2, 9, 5, 4))
    x = x[:1, :, :1].expand(2, 9, 5).requires_grad_()
    reset = torch.zeros(1, 1, dtype=torch.bool, device=device).expand(2, 9)
    grads = []
    for backend in ("reference", "triton"):
        y, state = kernels.causal_conv1d(x, w, b, reset, None, "silu", backend)
        grads.append(torch.autograd.grad(y.sum() + state.sum(), x)[0])
    torch.testing.assert_close(*grads)


@pytest.mark.slow
@pytest.mark.parametrize("T", [1, 2, 3, 15, 65, 130])
@pytest.mark.parametrize("C", [1, 5, 80])
@pytest.mark.parametrize("W", [1, 2, 4, 7, 40])
def test_every_size(hold_to_reference, make_reset, T, C, W):
    for kind in RESETS:
        for with_state in (False, True):
            xs = make_inputs(2, T, C, W, with_state)
            hold_to_reference(convolve("silu"), xs, make_reset(kind, 2, T))


@pytest.mark.parametrize(("W", "activation"), [(1, "silu"), (2, "none"), (4, "silu"), (7, "silu")])
def test_step_equals_reference_and_sequence(device, make_reset, W, activation):
    x, w, b, state = (x.float().to(device) for x in make_inputs(3, 1, 5, W))
    w = w.t().contiguous().t()
    for kind in ("none", "consecutive"):
        reset = make_reset(kind, 3, 1)
        r, rs = (None, None) if reset is None else (reset[:, 0].to(device), reset.to(device))
        for bias, old in ((b, state), (None, state.movedim(0, -1).contiguous().movedim(-1, 0))):
            args = (x[:, 0], w, bias, r, old, activation)
            want = kernels.causal_conv1d_step(*args, backend="reference")
            got = kernels.causal_conv1d_step(*args, backend="triton")
            torch.testing.assert_close(got, want)
            y, end = kernels.causal_conv1d(x, w, bias, rs, old, activation, "triton")
            torch.testing.assert_close((y[:, 0], end), want)
            buffer = old.clone()
            y, end = kernels.causal_conv1d_step(
                x[:, 0], w, bias, r, buffer, activation, "triton", inplace=True
            )
            assert end is buffer
            torch.testing.assert_close((y, end), want)
    fresh = kernels.causal_conv1d_step(x[:, 0], w, b, None, None, activation, "triton")
    zeros = kernels.causal_conv1d_step(x[:, 0], w, b, None, state * 0, activation, "triton")
    torch.testing.assert_close(fresh, zeros)


def test_steps_follow_the_sequence_through_resets_in_place(device, make_reset):
    x, w, b, state = (x.to(device, BF16) for x in make_inputs(11, 6, 20, 4))
    reset = make_reset("random", 11, 6).to(device)
    want = kernels.causal_conv1d(x, w, b, reset, state, "silu", "triton")
    ys = [
        kernels.causal_conv1d_step(
            x[:, t], w, b, reset[:, t], state, "silu", "triton", inplace=True
        )[0]
        for t in range(6)
    ]
    torch.testing.assert_close((torch.stack(ys, 1), state), want)


def test_step_is_differentiable(hold_to_reference):
    def call(xs, reset, backend):
        return kernels.causal_conv1d_step(*xs[:3], reset, xs[3], "silu", backend)

    x, w, b, state = make_inputs(3, 1, 5, 4)
    hold_to_reference(call, [x[:, 0], w, b, state], torch.tensor([False, True, False]))


def test_a_nan_does_not_survive_a_reset(device):
    x, w, b, state = (x.float().to(device) for x in make_inputs(2, 40, 5, 4))
    reset = torch.zeros(2, 40, dtype=torch.bool, device=device)
    reset[:, 0] = reset[:, 35] = True
    state[:] = torch.nan
    x[:, 30:35] = torch.nan
    x.requires_grad_()
    state.requires_grad_()
    y, end = kernels.causal_conv1d(x, w, b, reset, state, "silu", "triton")
    assert y[:, :30].isfinite().all() and y[:, 35:].isfinite().all() and end.isfinite().all()
    dx, dstate = torch.autograd.grad(y[:, 35:].sum() + y[:, :30].sum() + end.sum(), (x, state))
    # the last three inputs before 30 meet a NaN in the pre-activations that they lead to
    assert dx[:, :27].isfinite().all() and dx[:, 35:].isfinite().all()
    assert (dstate == 0).all()
    with torch.no_grad():
        y, end = kernels.causal_conv1d_step(
            x[:, 0], w, b, reset[:, 0], state.detach(), "silu", "triton", inplace=True
        )
    assert y.isfinite().all() and end.isfinite().all()


def test_no_sequences(device):
    x = torch.zeros(0, 4, 5, device=device, requires_grad=True)
    w = torch.ones(5, 3, device=device, requires_grad=True)
    y, end = kernels.causal_conv1d(x, w, None, None, None, "silu", "triton")
    assert y.shape == (0, 4, 5) and end.shape == (0, 2, 5)
    assert torch.equal(torch.autograd.grad(y.sum(), w)[0], torch.zeros_like(w))


def test_what_is_compiled_does_not_depend_on_the_batch_size():
    def constants(B):
        meta = [torch.empty(s, device="meta") for s in ((B, 64, 96), (96, 4), (96,), (B, 3, 96))]
        x, w, b, state = meta
        x.requires_grad_()
        with launch.recording("sm_80") as seen:
            y, _ = ops.causal_conv1d(x, w, b, None, state, "silu")
            y.backward(torch.empty_like(y))
            with torch.no_grad():
                ops.causal_conv1d_step(x[:, 0], w, b, None, state, "silu", True)
        assert len(seen.launches) == 4
        return [
            {n: a for n, a in arguments.items() if (n.isupper() and n != "B") or n == "num_warps"}
            for _, arguments in seen.launches
        ]

    assert constants(1) == constants(4096)


def op_inputs(device, with_state, grad=True):
    x, w, b, state = (x.float().to(device).requires_grad_(grad) for x in make_inputs(2, 5, 3, 4))
    reset = torch.tensor([[False, True, False, False, True], [False] * 5], device=device)
    return x, w, b if with_state else None, reset, state if with_state else None


def test_opcheck(device):
    torch.library.opcheck(ops.conv1d_op, (*op_inputs(device, False), "silu"))
    x, w, b, reset, state = op_inputs(device, True, grad=False)
    dy, dend = torch.randn_like(x), torch.randn_like(x[:, :3])
    torch.library.opcheck(ops.conv1d_backward_op, (dy, None, x, w, b, reset, state, "silu"))
    some = ("test_schema", "test_faketensor")  # without aot_autograd's traces, which take long
    for op, args in (
        (ops.conv1d_op, (x, w, b, reset, state, "silu")),
        (ops.conv1d_backward_op, (None, dend, x, w, None, reset, None, "silu")),
        (ops.conv1d_step_op, (x[:, 0], w, b, reset[:, 0], state, "silu")),
        (ops.conv1d_step_inplace_op, (x[:, 0], w, b, reset[:, 0], state, "silu")),
    ):
        torch.library.opcheck(op, args, test_utils=some)


def test_compiled_equals_eager(device):
    def sequence(x, w, b, reset, state):
        y, end = ops.causal_conv1d(x, w, b, reset, state, "silu")
        y_0, _ = ops.causal_conv1d_step(x[:, 0], w, b, reset[:, 0], end, "none", False)
        return y.sum() + y_0.square().sum()

    def step(x, w, b, reset, state, inplace):
        return ops.causal_conv1d_step(x[:, 0], w, b, reset[:, 0], state, "silu", inplace)

    xs = op_inputs(device, True)
    inputs = [x for x in xs if x.requires_grad]
    compiled = torch.compile(sequence, backend="aot_eager", fullgraph=True)
    got, want = compiled(*xs), sequence(*xs)
    torch.testing.assert_close(got, want)
    grads = torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs)
    torch.testing.assert_close(*grads)
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        want = step(*xs, False)
        torch.testing.assert_close(compiled(*xs, False), want)
        y, end = compiled(*xs, True)
    torch.testing.assert_close((y, xs[4].detach()), want)
    assert end is xs[4]
