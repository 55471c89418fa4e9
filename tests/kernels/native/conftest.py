import os
import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from xlstm_rl.kernels.native import sequence_chain, workspace


@pytest.fixture(autouse=True)
def _buffers_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each buffer is new and full of NaN, which what was not written would bring into a result.

    Under AddressSanitizer it is not larger than it need be.
    """
    slack = workspace.ALIGNMENT if "asan" in os.environ.get("LD_PRELOAD", "") else 0

    def take(size: int) -> torch.Tensor:
        buffer = torch.full((size - slack,), 255, dtype=torch.uint8)
        assert not slack or buffer.data_ptr() % slack == 0
        return buffer

    monkeypatch.setattr(workspace._pool, "take", take)
    monkeypatch.setattr(sequence_chain, "allocate", take)
    monkeypatch.setattr(workspace._pool, "give_back", lambda buffer: None)


@pytest.fixture
def in_child() -> Callable[[Callable[[], object]], str]:
    """What a function returns in a child made by `os.fork`; the child must end within a minute."""

    def run(function: Callable[[], object]) -> str:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write, str(function()).encode())
            finally:
                os._exit(0)
        os.close(write)
        killer = threading.Timer(60, os.kill, (child, 9))
        killer.start()
        with open(read) as answer:
            text = answer.read()
        killer.cancel()
        os.waitpid(child, 0)
        return text

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run the test on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
