import ctypes
from collections.abc import Callable

import pytest

from xlstm_rl.kernels.native import workspace
from xlstm_rl.kernels.native.workspace import lend_tensor, scratch


@pytest.fixture
def _buffers_of_nan() -> None:
    """These tests are about the pool that the others go without."""


@pytest.mark.parametrize("size", [1000, 5_000_000])
def test_a_forked_child_has_buffers_of_its_own(size: int, in_child: Callable[..., str]) -> None:
    buffer = lend_tensor(size)
    buffer.fill_(1)

    def write() -> int:
        buffer.fill_(2)
        with scratch(size) as address:
            ctypes.memset(address, 3, size)
        return int(buffer[0])

    assert in_child(write) == "2"
    assert buffer.eq(1).all()


@pytest.mark.parametrize("size", [1000, 5_000_000])
def test_an_idle_buffer_is_not_shared_with_a_child(size: int, in_child: Callable[..., str]) -> None:
    def fill(value: int) -> bytes:
        with scratch(size) as address:
            before = ctypes.string_at(address, size)
            ctypes.memset(address, value, size)
        return before

    workspace._pool.clear()  # of other tests' buffers: of two that fit as well each is lent in turn
    fill(1)
    in_child(lambda: len(fill(2)))
    assert fill(3) == b"\1" * size


def test_a_fork_while_another_thread_takes_a_buffer_does_not_block_the_child(
    in_child: Callable[..., str],
) -> None:
    with workspace._pool._lock:
        assert in_child(lambda: lend_tensor(100).numel()) == "100"
