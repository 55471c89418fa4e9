"""The state: fresh zeros, handed in and back, never written into, the same size for ever."""

from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

from xlstm_rl.memory import Memory, MemoryConfig, make_memory


def test_a_fresh_state_is_zeros_and_the_same_as_none(memory: Memory) -> None:
    state = memory.initial_state(5)
    assert state.batch_size == torch.Size([5])
    tensors = [state[key] for key in memory.state_keys]
    assert all(tensor.shape[0] == 5 and not tensor.any() for tensor in tensors)
    assert all(tensor.dtype == torch.float64 for tensor in tensors)
    x = torch.randn(5, 4, memory.width, dtype=torch.float64)
    torch.testing.assert_close(memory(x, state)[0], memory(x)[0], atol=0, rtol=0)
    torch.testing.assert_close(memory.step(x[:, 0], state)[0], memory.step(x[:, 0])[0])


def test_device_and_dtype_of_a_fresh_state_can_be_chosen(memory: Memory) -> None:
    state = memory.initial_state(2, device="meta", dtype=torch.float32)
    for key in memory.state_keys:
        assert state[key].device.type == "meta"
        assert state[key].dtype == torch.float32


def test_inputs_are_never_written_into(memory: Memory) -> None:
    x = torch.randn(3, 6, memory.width, dtype=torch.float64)
    state = memory(x)[1].detach()
    reset = torch.rand(3, 6) < 0.5
    before = (x.clone(), state.clone(), reset.clone())
    memory(x, state, reset)
    memory.step(x[:, 0], state, reset[:, 0])
    with torch.no_grad():
        memory(x, state, reset)
        memory.step(x[:, 0], state, reset[:, 0])
        memory.step(x[:, 0], state)
    assert torch.equal(x, before[0])
    assert torch.equal(reset, before[2])
    for key in memory.state_keys:
        assert torch.equal(state[key], before[1][key])


def test_a_state_handed_back_earlier_stays_what_it_was(memory: Memory) -> None:
    x = torch.randn(3, 6, memory.width, dtype=torch.float64)
    with torch.no_grad():
        _, first = memory.step(x[:, 0])
        copy = first.clone()
        _, second = memory.step(x[:, 1], first)
        memory.step(x[:, 2], second)
    for key in memory.state_keys:
        assert torch.equal(first[key], copy[key])


def test_the_state_never_grows(memory: Memory) -> None:
    def size(state: TensorDict) -> list[torch.Size]:
        return [state[key].shape for key in memory.state_keys]

    fresh = size(memory.initial_state(2))
    x = torch.randn(2, 40, memory.width, dtype=torch.float64)
    assert size(memory(x)[1]) == fresh
    state = None
    with torch.no_grad():
        for t in range(40):
            _, state = memory.step(x[:, t], state)
    assert size(state) == fresh


def test_a_state_can_be_indexed_by_environment(memory: Memory) -> None:
    x = torch.randn(4, 6, memory.width, dtype=torch.float64)
    _, state = memory(x)
    y, _ = memory.step(x[:, 0], state)
    rows = torch.tensor([2, 0])
    y_rows, _ = memory.step(x[rows, 0], state[rows])
    torch.testing.assert_close(y_rows, y[rows], atol=1e-12, rtol=1e-12)


def test_bare_leaves_and_tensordict_carry_the_same(memory: Memory) -> None:
    x = torch.randn(3, 6, memory.width, dtype=torch.float64)
    y, state = memory(x)
    y_leaves, tensors = memory.forward_tensors(x)
    torch.testing.assert_close(y, y_leaves, atol=0, rtol=0)
    assert len(tensors) == len(memory.state_keys) == len(memory.initial_tensors(3))
    for key, tensor in zip(memory.state_keys, tensors, strict=True):
        assert torch.equal(state[key], tensor)
    packed = memory.pack_state(tensors, batch_size=3)
    assert packed.batch_size == torch.Size([3])
    for tensor, unpacked in zip(tensors, memory.unpack_state(packed), strict=True):
        assert unpacked is tensor or torch.equal(unpacked, tensor)


def test_weights_survive_a_round_trip_through_a_file(
    memory: Memory, options: dict[str, object], tmp_path: Path
) -> None:
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    again = make_memory(MemoryConfig(**options)).double()  # type: ignore[arg-type]
    again.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    x = torch.randn(2, 9, memory.width, dtype=torch.float64)
    torch.testing.assert_close(again(x)[0], memory(x)[0], atol=0, rtol=0)


def test_the_memoryless_state_is_empty_but_knows_its_batch() -> None:
    memory = make_memory(MemoryConfig(kind="mlp"))
    state = memory.initial_state(7)
    assert state.batch_size == torch.Size([7])
    assert list(state.keys()) == []
    assert memory.step(torch.randn(7, 64), state)[1].batch_size == torch.Size([7])
    with pytest.raises(ValueError, match="cannot tell its batch size"):
        memory.pack_state(())


class TestErrors:
    @pytest.fixture
    def stack(self) -> Memory:
        return make_memory(MemoryConfig(pattern="ms", width=32))

    def test_wrong_inputs(self, stack: Memory) -> None:
        with pytest.raises(ValueError, match=r"\[2, 32\], expected \[B, T, 32\].*call step"):
            stack(torch.zeros(2, 32))
        with pytest.raises(ValueError, match=r"\[2, 3, 32\], expected \[B, 32\].*itself"):
            stack.step(torch.zeros(2, 3, 32))
        with pytest.raises(ValueError, match=r"\[2, 3, 31\]"):
            stack(torch.zeros(2, 3, 31))
        with pytest.raises(ValueError, match="T >= 1"):
            stack(torch.zeros(2, 0, 32))

    def test_wrong_resets(self, stack: Memory) -> None:
        x = torch.zeros(2, 3, 32)
        with pytest.raises(ValueError, match=r"reset has shape \[2, 4\], expected \[2, 3\]"):
            stack(x, None, torch.zeros(2, 4, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"dtype torch\.float32, expected torch\.bool"):
            stack(x, None, torch.zeros(2, 3))
        with pytest.raises(ValueError, match=r"\[2, 1\], expected \[2\]"):
            stack.step(x[:, 0], None, torch.zeros(2, 1, dtype=torch.bool))

    def test_wrong_states(self, stack: Memory) -> None:
        x = torch.zeros(2, 3, 32)
        with pytest.raises(ValueError, match=r"block_0.*has shape \[3, .*expected \[2, "):
            stack(x, stack.initial_state(3))
        lstm = make_memory(MemoryConfig(kind="lstm", width=32))
        with pytest.raises(ValueError, match="made by another memory"):
            stack(x, lstm.initial_state(2))
        with pytest.raises(ValueError, match=r"batch size \[2, 1\], expected \[B\]"):
            stack(x, stack.initial_state(2)[:, None])
        with pytest.raises(ValueError, match="1 tensors, expected 9"):
            stack.forward_tensors(x, (torch.zeros(2),))
        tensors = stack.initial_tensors(2)
        with pytest.raises(ValueError, match="has batch 1, expected 2"):
            stack.pack_state((*tensors[:-1], tensors[-1][:1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_grad", [True, False])
def test_a_batch_of_no_rows_gives_outputs_and_a_state_of_no_rows(
    memory: Memory, dtype: torch.dtype, with_grad: bool
) -> None:
    memory.to(dtype)
    x, reset = torch.zeros(0, 5, memory.width, dtype=dtype), torch.zeros(0, 5, dtype=torch.bool)
    with torch.set_grad_enabled(with_grad):
        out, state = memory(x, None, reset)
        alone, after = memory.step(x[:, 0], state, reset[:, 0])
    assert out.shape == x.shape
    assert alone.shape == x[:, 0].shape
    for key in memory.state_keys:
        assert state[key].shape == after[key].shape == memory.initial_state(0)[key].shape
