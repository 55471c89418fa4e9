"""The whole mLSTM block in C against the float64 reference: outputs, states, every gradient."""

import pytest
import torch
from torch.library import opcheck

from xlstm_rl.kernels.mlstm.block import MLSTMBlockWeights, mlstm_block
from xlstm_rl.kernels.native.mlstm_block import run_mlstm_block
from xlstm_rl.kernels.native.mlstm_block_step import MLSTMBlockStep

from .mlstm_cases import Case, differentiate, error, hold, leaf

NAN = float("nan")
CASES = [
    Case(2, 64, 128, 256, 4),
    Case(2, 64, 128, 256, 4, state=False, resets=0),
    Case(2, 128, 64, 128, 2, forget_gate="exponential", bias=True),
    Case(3, 70, 64, 128, 4, bias=True, S=1),
    Case(2, 33, 64, 256, 2, S=16),
    Case(2, 40, 64, 128, 8, W=2, S=8),
    Case(3, 31, 30, 60, 3, W=3, S=5, bias=True),
    Case(4, 9, 24, 72, 3, W=0, S=2),
    Case(1, 1, 16, 48, 2, W=7),
    Case(5, 2, 20, 20, 20, W=5, S=1, forget_gate="exponential"),
    Case(2, 50, 16, 64, 1, W=40, resets=0.02),
    Case(3, 71, 24, 96, 4, W=16, resets=0.05),
    Case(2, 66, 24, 48, 2, W=14, state=False),
    Case(9, 40, 16, 64, 4, resets=1.0),
]
SMALL = Case(2, 40, 16, 64, 2)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_float64_reference(case):
    hold(case)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
@pytest.mark.parametrize("gates", [10, 80])
def test_gates_far_from_0(gates, forget_gate):
    hold(Case(2, 70, 32, 64, 2, gates=gates, forget_gate=forget_gate), limit=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("inplace", [False, True])
def test_steps_equal_the_sequence(case, inplace):
    x, reset, state, weights = (
        case.make()
        if case.state
        else Case(**{**vars(case), "state": True}).make()  # in place there is one
    )
    x, weights = x.float(), MLSTMBlockWeights(*(None if w is None else w.float() for w in weights))
    state = tuple(s.float() for s in state)
    with torch.no_grad():
        want, last = run_mlstm_block(x, reset, state, weights, case.options)
        now, outs = tuple(s.clone() for s in state), []
        for t in range(case.T):
            y, after = MLSTMBlockStep()(
                x[:, t].contiguous(), reset[:, t], now, weights, case.options, inplace
            )
            assert (after is now) == inplace
            now = after
            outs.append(y)
    for got, expected in zip((torch.stack(outs, 1), *now), (want, *last), strict=True):
        assert error(got, expected.double()) < 1e-5


def test_a_step_of_no_state_begins_afresh():
    x, _, _, weights = SMALL.make()
    x, weights = x.float(), MLSTMBlockWeights(*(None if w is None else w.float() for w in weights))
    with torch.no_grad():
        got, after = MLSTMBlockStep()(x[:, 0].contiguous(), None, None, weights, SMALL.options)
        want, last = mlstm_block(
            x[:, :1], None, None, weights, SMALL.options._replace(backend="torch")
        )
    for a, b in zip((got, *after), (want[:, 0], *last), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "case",
    [
        Case(5, 70, 24, 64, 4, bias=True),  # shares that differ
        Case(12, 37, 24, 64, 4, bias=True),  # 1, 2 and 4 threads take sequences from end to end
        Case(6, 33, 96, 32, 2),  # wider than what is inside
    ],
    ids=str,
)
def test_results_do_not_depend_on_the_number_of_threads(case):
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 4, 6):
            torch.set_num_threads(threads)
            found.append(differentiate(run_mlstm_block, case, torch.float32))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for name, x in found[0].items():
            assert torch.equal(x, other[name]), name


@pytest.mark.parametrize(
    "case",
    [
        Case(7, 200, 16, 32, 2),
        Case(3, 600, 16, 32, 2, state=False),
        Case(5, 300, 12, 24, 2, W=0, S=2, resets=0),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_pass_without_gradients_gives_the_same_bits(case, threads):
    x, reset, state, weights = case.make()
    x, weights = (
        leaf(x, torch.float32),
        MLSTMBlockWeights(*(leaf(w, torch.float32) for w in weights)),
    )
    state = None if state is None else tuple(s.float() for s in state)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        out, after = run_mlstm_block(x, reset, state, weights, case.options)
        with torch.no_grad():
            alone, after_alone = run_mlstm_block(x, reset, state, weights, case.options)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(out, alone)
    assert all(torch.equal(a, b) for a, b in zip(after, after_alone, strict=True))


def test_an_empty_batch_goes_through():
    got = differentiate(run_mlstm_block, Case(0, 5, 16, 64, 2), torch.float32)
    assert got["out"].shape == (0, 5, 16)
    assert all(not g.any() for name, g in got.items() if name.startswith("d"))


def test_strides_do_not_matter():
    x, reset, state, weights = SMALL.make()

    def strided(t):
        return None if t is None else t.float().repeat_interleave(2, -1)[..., ::2]

    plain = MLSTMBlockWeights(*(None if w is None else w.float() for w in weights))
    odd = MLSTMBlockWeights(*map(strided, weights))
    resets = reset.repeat_interleave(2, -1)[..., ::2]
    want, last = run_mlstm_block(
        x.float(), reset, tuple(s.float() for s in state), plain, SMALL.options
    )
    got, after = run_mlstm_block(strided(x), resets, tuple(map(strided, state)), odd, SMALL.options)
    for a, b in zip((got, *after), (want, *last), strict=True):
        assert torch.equal(a, b)


def test_what_is_not_finite_stays_in_its_row_and_episode():
    case = Case(4, 40, 16, 64, 2, resets=0)

    def spoil(x, state):
        x[0, 20] = NAN
        state[-3][1, 0, 0, 0] = NAN  # C
        state[0][2, 0] = float("inf")

    x, _, state, weights = case.make()
    spoil(x, state)
    reset = torch.zeros(4, 40, dtype=torch.bool)
    reset[:, 30] = True
    weights32 = MLSTMBlockWeights(*(None if w is None else w.float() for w in weights))
    assert (
        run_mlstm_block(x.float(), reset, tuple(s.float() for s in state), weights32, case.options)
        is None
    )
    with torch.no_grad():
        now, outs = tuple(s.float() for s in state), []
        for t in range(40):
            y, now = MLSTMBlockStep()(
                x[:, t].float().contiguous(), reset[:, t], now, weights32, case.options
            )
            outs.append(y)
        want, last = mlstm_block(
            x, reset, state, weights, case.options._replace(backend="reference")
        )
    for got, expected in zip((torch.stack(outs, 1), *now), (want, *last), strict=True):
        assert torch.equal(got.isfinite(), expected.isfinite())
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_a_gradient_that_is_not_finite_goes_back_to_its_reset_and_no_further():
    case = Case(2, 40, 16, 64, 2, resets=0.1)
    incoming = case.incoming()
    incoming[0][0, 20] = NAN
    got = differentiate(run_mlstm_block, case, torch.float32, incoming)
    want = differentiate(mlstm_block, case, torch.float64, incoming, backend="reference")
    finite = want["dx"].isfinite()
    assert finite[1].all()
    assert not finite[0].all()
    torch.testing.assert_close(got["dx"].double()[finite], want["dx"][finite], rtol=1e-4, atol=1e-4)


def test_weights_that_need_no_gradient_get_none():
    x, reset, state, weights = SMALL.make()
    want = differentiate(run_mlstm_block, SMALL, torch.float32)
    frozen = MLSTMBlockWeights(*(None if w is None else w.float() for w in weights))
    frozen = frozen._replace(gate=frozen.gate.requires_grad_())
    out, after = run_mlstm_block(
        x.float(), reset, tuple(s.float() for s in state), frozen, SMALL.options
    )
    torch.autograd.backward([out, *after], [g.float() for g in SMALL.incoming()])
    torch.testing.assert_close(frozen.gate.grad, want["dgate"])
    assert all(w is None or w.grad is None for n, w in frozen._asdict().items() if n != "gate")


def make_loss(case=SMALL):
    x, reset, state, weights = case.make()
    x, weights = (
        leaf(x, torch.float32),
        MLSTMBlockWeights(*(leaf(w, torch.float32) for w in weights)),
    )
    state = tuple(leaf(s, torch.float32) for s in state)
    out, after = run_mlstm_block(x, reset, state, weights, case.options)
    return out.square().sum() + sum(s.square().sum() for s in after), x


def test_a_graph_is_walked_again_only_if_it_was_retained():
    loss, x = make_loss()
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(loss, x)
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, x)


def test_graphs_that_live_at_once_do_not_share_their_memory():
    (want,) = torch.autograd.grad(*make_loss())
    loss, x = make_loss()
    others = [make_loss(Case(**{**vars(SMALL), "seed": seed})) for seed in (1, 2)]
    for other, y in others:
        torch.autograd.grad(other, y)
    make_loss(Case(**{**vars(SMALL), "seed": 3}))
    assert torch.equal(torch.autograd.grad(loss, x)[0], want)


def test_second_derivatives_are_those_of_the_reference():
    case = Case(1, 5, 8, 16, 2)
    found = []
    for run, dtype, backend in (
        (mlstm_block, torch.float64, "reference"),
        (run_mlstm_block, torch.float32, "native"),
    ):
        x, reset, state, weights = case.make()
        x, up = leaf(x, dtype), leaf(weights.up, dtype)
        weights = MLSTMBlockWeights(*(None if w is None else w.to(dtype) for w in weights))
        options = case.options._replace(backend=backend)
        state = tuple(s.to(dtype) for s in state)
        out, _ = run(x, reset, state, weights._replace(up=up), options)
        (dx,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(dx.square().sum(), [x, up]))
    for a, b in zip(*found, strict=True):
        assert error(b, a) < 1e-4


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.few(1)
def test_the_op_of_compiled_code_is_sound(carried):
    x, reset, state, weights = Case(2, 5, 8, 16, 2).make()
    x, weights = leaf(x, torch.float32), [leaf(w, torch.float32) for w in weights]
    state = [leaf(s, torch.float32) for s in state] if carried else [None] * 4
    arguments = (x, reset, *state, *weights, 2, "sigmoid")
    op = torch.ops.xlstm_rl.native_mlstm_block
    opcheck(op.default, arguments)
    before = tuple(state) if carried else None
    out, after = run_mlstm_block(x, reset, before, MLSTMBlockWeights(*weights), SMALL.options)
    leaves = [t for t in (x, *state, *weights) if t is not None]
    found = []
    for outputs in ((out, *after), op(*arguments)):
        gen = torch.Generator().manual_seed(0)
        given = [torch.randn(o.shape, generator=gen) for o in outputs]
        found.append([*outputs, *torch.autograd.grad(outputs, leaves, given)])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("what", ["dtype", "shape", "reset"])
def test_tensors_that_c_takes_otherwise_are_left_to_torch(what):
    x, reset, state, weights = SMALL.make()
    weights = MLSTMBlockWeights(*(None if w is None else w.float() for w in weights))
    state = tuple(s.float() for s in state)
    if what == "dtype":
        weights = weights._replace(skip=weights.skip.double())
    elif what == "shape":
        state = (*state[:-1], state[-1][:, :1])
    else:
        reset = reset.to(torch.uint8)
    assert run_mlstm_block(x.float(), reset, state, weights, SMALL.options) is None
    with torch.no_grad():
        step = MLSTMBlockStep()(x[:, 0].float(), reset[:, 0], state, weights, SMALL.options)
    assert step is None
