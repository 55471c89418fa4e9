"""Acting in place: the leaves handed in are overwritten, with the functional step's numbers."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from xlstm_rl.memory import Memory, MemoryConfig, make_memory

B, T = 4, 12


def _random_resets(device: torch.device | str = "cpu") -> Tensor:
    reset = torch.rand(T, B) < 0.25
    reset[3], reset[4] = False, True  # steps with none and with all
    return reset.to(device)


def _assert_equal_steps(memory: Memory, x: Tensor, resets: list[Tensor | None]) -> None:
    """Run both ways over x [T, B, D] and compare every output and every leaf to the last bit."""
    leaves = tuple(torch.randn_like(leaf).abs() for leaf in memory.initial_leaves(x.shape[1]))
    functional = tuple(leaf.clone() for leaf in leaves)
    for x_t, reset in zip(x, resets, strict=True):
        y, functional = memory.step_leaves(x_t, functional, reset)
        y_inplace, after = memory.step_leaves(x_t, leaves, reset, inplace=True)
        assert torch.equal(y_inplace, y)
        assert len(after) == len(leaves)
        for key, new, given, expected in zip(
            memory.state_keys, after, leaves, functional, strict=True
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
@pytest.mark.parametrize("pattern", ["m", "s", "ms"])
def test_in_place_equals_functional_on_the_reference_backend(
    pattern: str, perturb: Callable[[nn.Module], None]
) -> None:
    config = MemoryConfig(pattern=pattern, width=16, num_heads=2, backend="reference")
    memory = make_memory(config)
    perturb(memory)
    _assert_equal_steps(memory, torch.randn(T, B, 16), [*_random_resets()])


@torch.no_grad()
def test_a_reset_in_place_hides_even_a_ruined_past(memory: Memory) -> None:
    leaves = tuple(torch.full_like(leaf, float("nan")) for leaf in memory.initial_leaves(B))
    x = torch.randn(B, memory.width, dtype=torch.float64)
    y, _ = memory.step_leaves(x, leaves, torch.ones(B, dtype=torch.bool), inplace=True)
    expected, after = memory.step_leaves(x, memory.initial_leaves(B))
    assert torch.equal(y, expected)
    for leaf, fresh in zip(leaves, after, strict=True):
        assert torch.equal(leaf, fresh)


@torch.no_grad()
def test_rows_of_a_larger_buffer_are_written_and_the_others_left_alone(memory: Memory) -> None:
    buffers = memory.initial_leaves(2 * B + 1)
    rows = tuple(buffer[1::2] for buffer in buffers)
    x = torch.randn(B, memory.width, dtype=torch.float64)
    _, expected = memory.step_leaves(x, memory.initial_leaves(B))
    memory.step_leaves(x, rows, inplace=True)
    for buffer, leaf in zip(buffers, expected, strict=True):
        assert torch.equal(buffer[1::2], leaf)
        assert not buffer[::2].any()


@torch.no_grad()
def test_in_place_under_autocast_keeps_tensors_and_dtypes(memory: Memory) -> None:
    memory.float()
    leaves = memory.initial_leaves(B)
    functional = memory.initial_leaves(B)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for x in torch.randn(5, B, memory.width):
            y, functional = memory.step_leaves(x, functional)
            y_inplace, after = memory.step_leaves(x, leaves, inplace=True)
            torch.testing.assert_close(y_inplace, y, atol=2e-2, rtol=2e-2)
    for leaf, new in zip(leaves, after, strict=True):
        assert new is leaf and leaf.dtype == torch.float32


class TestErrors:
    def test_there_must_be_something_to_overwrite(self) -> None:
        memory = make_memory(MemoryConfig(kind="lstm"))
        with torch.no_grad(), pytest.raises(ValueError, match="needs a state to overwrite"):
            memory.step_leaves(torch.zeros(2, 64), inplace=True)

    @pytest.mark.parametrize("kind", ["xlstm", "lstm", "gru"])
    def test_gradients_are_refused(self, kind: str) -> None:
        memory = make_memory(MemoryConfig(kind=kind))  # type: ignore[arg-type]
        x, leaves = torch.zeros(2, 64), memory.initial_leaves(2)
        with pytest.raises(RuntimeError, match=r"under torch\.no_grad\(\)"):
            memory.step_leaves(x, leaves, inplace=True)
        memory.requires_grad_(False)
        memory.step_leaves(x, leaves, inplace=True)  # nothing to differentiate


@pytest.mark.gpu
@torch.no_grad()
def test_in_place_equals_functional_on_a_gpu(memory: Memory) -> None:
    memory.float().cuda()
    resets = _random_resets("cuda")
    x = torch.randn(T, B, memory.width, device="cuda")
    functional, leaves = memory.initial_leaves(B), memory.initial_leaves(B)
    for x_t, reset in zip(x, resets, strict=True):
        y, functional = memory.step_leaves(x_t, functional, reset)
        y_inplace, after = memory.step_leaves(x_t, leaves, reset, inplace=True)
        torch.testing.assert_close(y_inplace, y, atol=1e-5, rtol=1e-5)
        assert all(new is given for new, given in zip(after, leaves, strict=True))
    for key, leaf, expected in zip(memory.state_keys, leaves, functional, strict=True):
        torch.testing.assert_close(leaf, expected, atol=1e-5, rtol=1e-5, msg=str(key))


@pytest.mark.gpu
@torch.no_grad()
@pytest.mark.parametrize("inplace", [False, True], ids=["functional", "in place"])
def test_a_step_on_a_gpu_never_waits_for_it(
    memory: Memory,
    inplace: bool,
    waiting_is_an_error: Callable[[], AbstractContextManager[None]],
) -> None:
    memory.float().cuda()
    leaves = memory.initial_leaves(B)
    x, resets = torch.randn(T, B, memory.width, device="cuda"), _random_resets("cuda")
    memory.step_leaves(x[0], leaves, resets[0], inplace)  # compiles the kernels
    with waiting_is_an_error():
        for t in range(T):
            _, leaves = memory.step_leaves(x[t], leaves, resets[t], inplace)
