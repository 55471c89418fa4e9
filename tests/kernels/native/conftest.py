import os

import pytest
import torch

from xlstm_rl.kernels.native import workspace


@pytest.fixture(autouse=True)
def _exact_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under AddressSanitizer no buffer is used again, or larger than it need be."""
    if "asan" not in os.environ.get("LD_PRELOAD", ""):
        return

    def take(size: int) -> torch.Tensor:
        exact = torch.empty(size - workspace.ALIGNMENT, dtype=torch.uint8)
        assert exact.data_ptr() % workspace.ALIGNMENT == 0
        return exact

    monkeypatch.setattr(workspace._pool, "take", take)
    monkeypatch.setattr(workspace._pool, "give_back", lambda buffer: None)
