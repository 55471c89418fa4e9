"""The whole sLSTM block in C against the block's equations in float64."""

import itertools
from unittest import mock

import pytest
import torch

from xlstm_rl.kernels.native import slstm_block_step as native_step

from .slstm_block_cases import EVERY, SOME, exact, hold, make, run

pytestmark = pytest.mark.usefixtures("one_thread")


@EVERY
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize(("B", "T"), [(1, 1), (3, 9), (2, 3), (17, 20)])
@pytest.mark.each_value
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
@pytest.mark.each_value
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
