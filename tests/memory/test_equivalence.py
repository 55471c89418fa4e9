"""What acted is what trained: a sequence, its pieces and its single steps give the same numbers."""

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from xlstm_rl.memory import Memory

B, T = 3, 29
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def random_inputs(memory: Memory, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    x = torch.randn(B, T, memory.width, dtype=dtype)
    reset = torch.rand(B, T) < 0.15
    reset[0, 0] = True
    reset[1] = False
    return x, reset


def used_state(memory: Memory, dtype: torch.dtype = torch.float64) -> TensorDict:
    """A state that the memory itself came to."""
    return memory(torch.randn(B, 7, memory.width, dtype=dtype))[1].detach()


def assert_close(a: Tensor, b: Tensor, tolerance: float) -> None:
    """Compare to `tolerance` of the largest number, or of 1: rounding grows with the sums."""
    scale = max(1.0, float(b.detach().abs().max()))
    torch.testing.assert_close(a, b, atol=tolerance * scale, rtol=0)


def assert_states_close(a: TensorDict, b: TensorDict, tolerance: float) -> None:
    assert set(a.keys(True, True)) == set(b.keys(True, True))
    for key in a.keys(True, True):
        assert_close(a[key], b[key], tolerance)


@pytest.mark.parametrize("carried", [False, True], ids=["fresh", "carried"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.each_value
def test_steps_equal_the_sequence(memory: Memory, dtype: torch.dtype, carried: bool) -> None:
    memory.to(dtype)
    x, reset = random_inputs(memory, dtype)
    state = used_state(memory, dtype) if carried else None
    y, final = memory(x, state, reset)
    outputs = []
    for t in range(T):
        y_t, state = memory.step(x[:, t], state, reset[:, t])
        outputs.append(y_t)
    tolerance = TOLERANCE[dtype]
    assert_close(torch.stack(outputs, 1), y, tolerance)
    assert_states_close(state, final, tolerance)


def test_steps_without_resets_equal_the_sequence(memory: Memory) -> None:
    x, _ = random_inputs(memory)
    y, final = memory(x)
    state = memory.initial_state(B)
    for t in range(T):
        y_t, state = memory.step(x[:, t], state)
        assert_close(y_t, y[:, t], 1e-10)
    assert_states_close(state, final, 1e-10)


def test_pieces_equal_the_whole(memory: Memory) -> None:
    x, reset = random_inputs(memory)
    start = used_state(memory)
    y, final = memory(x, start, reset)
    outputs, state, begin = [], start, 0
    for length in (1, 8, 3, T - 12):
        piece = slice(begin, begin + length)
        y_piece, state = memory(x[:, piece], state, reset[:, piece])
        outputs.append(y_piece)
        begin += length
    assert_close(torch.cat(outputs, 1), y, 1e-10)
    assert_states_close(state, final, 1e-10)


@pytest.mark.parametrize("where", [0, 1, 8, 13, T - 1])
@pytest.mark.each_value
def test_a_reset_equals_two_sequences(memory: Memory, where: int) -> None:
    x, _ = random_inputs(memory)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, where] = True
    start = used_state(memory)
    y, final = memory(x, start, reset)
    if where:
        before, _ = memory(x[:, :where], start)
        assert_close(y[:, :where], before, 1e-10)
    after, state = memory(x[:, where:])
    assert_close(y[:, where:], after, 1e-10)
    assert_states_close(final, state, 1e-10)


@pytest.mark.parametrize("poison", [1e30, float("nan")])
def test_a_reset_hides_even_a_ruined_past(memory: Memory, poison: float) -> None:
    poisoned = memory.initial_state(B)
    for key in memory.state_keys:
        poisoned[key].fill_(poison)
    x, _ = random_inputs(memory)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 0] = True
    assert_close(memory(x, poisoned, reset)[0], memory(x)[0], 1e-12)
    y, state = memory.step(x[:, 0], poisoned, reset[:, 0])
    assert_close(y, memory.step(x[:, 0])[0], 1e-12)
    assert all(state[key].isfinite().all() for key in memory.state_keys)


def test_a_reset_of_one_row_never_touches_another(memory: Memory) -> None:
    x, _ = random_inputs(memory)
    start = used_state(memory)
    y, final = memory(x, start)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[1, [4, 5, 17]] = True
    y_reset, final_reset = memory(x, start, reset)
    for row in (0, 2):
        assert_close(y_reset[row], y[row], 1e-12)
        assert_states_close(final_reset[row], final[row], 1e-12)
    if memory.state_keys:
        assert (y_reset[1, 4:] - y[1, 4:]).abs().max() > 1e-3


def test_the_past_is_remembered_where_there_is_a_state(memory: Memory) -> None:
    """Without this, a memory that is always fresh would pass every other test here.

    One with a window sees as far as that.
    """
    x, _ = random_inputs(memory)
    changed = x.clone()
    changed[:, 0] = torch.randn(B, memory.width)  # a shift would be normed away
    difference = (memory(x)[0] - memory(changed)[0]).abs().amax((0, 2))
    assert difference[0] > 1e-9
    seen = T - 1 if memory.span is None else memory.span
    assert bool(memory.state_keys) == (seen > 0)
    assert ((difference[1:] > 1e-9) == (torch.arange(1, T) <= seen)).all()


def test_nothing_is_seen_before_it_happens(memory: Memory) -> None:
    x, reset = random_inputs(memory)
    changed = x.clone()
    changed[:, 11:] = 0
    y, y_changed = memory(x, None, reset)[0], memory(changed, None, reset)[0]
    assert_close(y[:, :11], y_changed[:, :11], 1e-12)


@pytest.mark.parametrize("state_before", ["used", "fresh"])
@pytest.mark.parametrize("T", [T, 1])
def test_gradients_of_the_steps_equal_those_of_the_sequence(
    memory: Memory, state_before: str, T: int
) -> None:
    x, reset = (given[:, :T] for given in random_inputs(memory))
    direction = torch.randn_like(x)
    # linear, so that what is zero in the state has a gradient too
    slopes = [torch.randn_like(memory.initial_state(len(x))[key]) for key in memory.state_keys]

    def gradients(stepwise: bool) -> list[Tensor]:
        inputs = x.clone().requires_grad_()
        tensors = tuple(tensor.clone().requires_grad_() for tensor in memory.unpack_state(before))
        if stepwise:
            outputs, state = [], tensors
            for t in range(T):
                y_t, state = memory.step_tensors(inputs[:, t], state, reset[:, t])
                outputs.append(y_t)
            y = torch.stack(outputs, 1)
        else:
            y, state = memory.forward_tensors(inputs, tensors, reset)
        loss = (y * direction).sum()
        for tensor, slope in zip(state, slopes, strict=True):
            loss = loss + tensor.square().sum() + (tensor * slope).sum()
        return list(
            torch.autograd.grad(loss, [inputs, *tensors, *memory.parameters()], allow_unused=True)
        )

    before = used_state(memory) if state_before == "used" else memory.initial_state(len(x))
    for stepwise, whole in zip(gradients(True), gradients(False), strict=True):
        if stepwise is None or whole is None:
            assert all(g is None or not g.any() for g in (stepwise, whole))
        else:
            assert_close(stepwise, whole, 1e-8)


def test_every_weight_learns(memory: Memory) -> None:
    x, reset = random_inputs(memory)
    y, _ = memory(x, used_state(memory), reset)
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in memory.named_parameters():
        assert parameter.grad is not None, name
        dead = parameter.grad.flatten(1) if parameter.dim() > 1 else parameter.grad[:, None]
        assert (dead.abs().amax(1) > 0).all(), name


def test_a_single_step_and_strided_inputs_are_fine(memory: Memory) -> None:
    x, reset = random_inputs(memory)
    y, _ = memory(x, None, reset)
    strided = x.transpose(0, 1).contiguous().transpose(0, 1)
    reset_strided = reset.t().contiguous().t()
    assert not strided.is_contiguous()
    assert_close(memory(strided, None, reset_strided)[0], y, 1e-12)
    wide = torch.randn(B, 2 * memory.width, dtype=torch.float64)[:, ::2]
    y_step, state = memory.step(wide)
    y_sequence, state_sequence = memory(wide[:, None])
    assert_close(y_step, y_sequence[:, 0], 1e-12)
    assert_states_close(state, state_sequence, 1e-12)
