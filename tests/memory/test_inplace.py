"""Acting in place: the tensors handed in are overwritten, with the functional step's numbers."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from xlstm_rl.memory import Memory, MemoryConfig, make_memory
from xlstm_rl.memory.config import MEMORIES, Backend

B, T = 4, 12

STATELESS = {"mlp"}
"""Kinds of memory that have no state to overwrite."""


def _random_resets(device: torch.device | str = "cpu") -> Tensor:
    reset = torch.rand(T, B) < 0.25
    reset[3], reset[4] = False, True  # steps with none and with all
    return reset.to(device)


def _assert_equal_steps(memory: Memory, x: Tensor, resets: list[Tensor | None]) -> None:
    """Run both ways over x [T, B, D] and compare every output and every tensor to the last bit."""
    tensors = tuple(torch.randn_like(tensor).abs() for tensor in memory.initial_tensors(x.shape[1]))
    functional = tuple(tensor.clone() for tensor in tensors)
    for x_t, reset in zip(x, resets, strict=True):
        y, functional = memory.step_tensors(x_t, functional, reset)
        y_inplace, after = memory.step_tensors(x_t, tensors, reset, inplace=True)
        assert torch.equal(y_inplace, y)
        assert len(after) == len(tensors)
        for key, new, given, expected in zip(
            memory.state_keys, after, tensors, functional, strict=True
        ):
            assert new is given, f"{key} is not the tensor that was handed in"
            assert torch.equal(given, expected), f"{key} differs"


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_in_place_equals_functional_and_keeps_the_tensors(
    memory: Memory, dtype: torch.dtype
) -> None:
    memory.to(dtype)
    resets: list[Tensor | None] = [*_random_resets()]
    resets[7] = None
    _assert_equal_steps(memory, torch.randn(T, B, memory.width, dtype=dtype), resets)


@torch.no_grad()
@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("pattern", ["m", "s", "ms"])
@pytest.mark.each_value("triton")
def test_in_place_equals_functional_on_every_backend(
    pattern: str, backend: Backend, perturb: Callable[[nn.Module], None]
) -> None:
    device = "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"
    memory = make_memory(MemoryConfig(pattern=pattern, width=16, num_heads=2, backend=backend))
    perturb(memory)
    steps = slice(2, 6) if backend == "triton" else slice(None)  # interpreted, they are slow
    x, resets = torch.randn(T, B, 16, device=device), _random_resets(device)
    _assert_equal_steps(memory.to(device), x[steps], [*resets[steps]])


@torch.no_grad()
def test_a_reset_in_place_hides_even_a_ruined_past(memory: Memory) -> None:
    tensors = tuple(torch.full_like(tensor, float("nan")) for tensor in memory.initial_tensors(B))
    x = torch.randn(B, memory.width, dtype=torch.float64)
    y, _ = memory.step_tensors(x, tensors, torch.ones(B, dtype=torch.bool), inplace=True)
    expected, after = memory.step_tensors(x, memory.initial_tensors(B))
    assert torch.equal(y, expected)
    for tensor, fresh in zip(tensors, after, strict=True):
        assert torch.equal(tensor, fresh)


@torch.no_grad()
def test_rows_of_a_larger_buffer_are_written_and_the_others_left_alone(memory: Memory) -> None:
    buffers = memory.initial_tensors(2 * B + 1)
    rows = tuple(buffer[1::2] for buffer in buffers)
    x = torch.randn(B, memory.width, dtype=torch.float64)
    _, expected = memory.step_tensors(x, memory.initial_tensors(B))
    memory.step_tensors(x, rows, inplace=True)
    for buffer, tensor in zip(buffers, expected, strict=True):
        assert torch.equal(buffer[1::2], tensor)
        assert not buffer[::2].any()


@torch.no_grad()
def test_in_place_under_autocast_keeps_tensors_and_dtypes(memory: Memory) -> None:
    memory.float()
    tensors = memory.initial_tensors(B)
    functional = memory.initial_tensors(B)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for x in torch.randn(5, B, memory.width):
            y, functional = memory.step_tensors(x, functional)
            y_inplace, after = memory.step_tensors(x, tensors, inplace=True)
            torch.testing.assert_close(y_inplace, y, atol=2e-2, rtol=2e-2)
    for tensor, new in zip(tensors, after, strict=True):
        assert new is tensor and tensor.dtype == torch.float32


@pytest.mark.parametrize("fresh", [True, False])
@torch.no_grad()
def test_autocast_keeps_the_dtypes_of_a_state(memory: Memory, fresh: bool) -> None:
    memory.float()
    state = None if fresh else memory.initial_tensors(B)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, after_step = memory.step_tensors(torch.randn(B, memory.width), state)
        _, after_sequence = memory.forward_tensors(torch.randn(B, 3, memory.width), state)
    for tensor in (*after_step, *after_sequence):
        assert tensor.dtype == torch.float32


class TestErrors:
    def test_there_must_be_something_to_overwrite(self) -> None:
        memory = make_memory(MemoryConfig(kind="lstm"))
        with torch.no_grad(), pytest.raises(ValueError, match="needs a state to overwrite"):
            memory.step_tensors(torch.zeros(2, 64), inplace=True)

    @pytest.mark.parametrize("kind", [kind for kind in MEMORIES.classes if kind not in STATELESS])
    def test_gradients_are_refused(self, kind: str) -> None:
        memory = make_memory(MemoryConfig(kind=kind))
        x, tensors = torch.zeros(2, 64), memory.initial_tensors(2)
        with pytest.raises(RuntimeError, match=r"under torch\.no_grad\(\)"):
            memory.step_tensors(x, tensors, inplace=True)
        memory.requires_grad_(False)
        memory.step_tensors(x, tensors, inplace=True)  # nothing to differentiate


@pytest.mark.gpu
@torch.no_grad()
def test_in_place_equals_functional_on_a_gpu(memory: Memory) -> None:
    memory.float().cuda()
    resets = _random_resets("cuda")
    x = torch.randn(T, B, memory.width, device="cuda")
    functional, tensors = memory.initial_tensors(B), memory.initial_tensors(B)
    for x_t, reset in zip(x, resets, strict=True):
        y, functional = memory.step_tensors(x_t, functional, reset)
        y_inplace, after = memory.step_tensors(x_t, tensors, reset, inplace=True)
        torch.testing.assert_close(y_inplace, y, atol=1e-5, rtol=1e-5)
        assert all(new is given for new, given in zip(after, tensors, strict=True))
    for key, tensor, expected in zip(memory.state_keys, tensors, functional, strict=True):
        torch.testing.assert_close(tensor, expected, atol=1e-5, rtol=1e-5, msg=str(key))


@pytest.mark.gpu
@torch.no_grad()
@pytest.mark.parametrize("inplace", [False, True], ids=["functional", "in place"])
def test_a_step_on_a_gpu_never_waits_for_it(
    memory: Memory,
    inplace: bool,
    waiting_is_an_error: Callable[[], AbstractContextManager[None]],
) -> None:
    memory.float().cuda()
    tensors = memory.initial_tensors(B)
    x, resets = torch.randn(T, B, memory.width, device="cuda"), _random_resets("cuda")
    memory.step_tensors(x[0], tensors, resets[0], inplace)  # compiles the kernels
    with waiting_is_an_error():
        for t in range(T):
            _, tensors = memory.step_tensors(x[t], tensors, resets[t], inplace)
