"""What is decided before a kernel starts."""

import pytest
import torch

from xlstm_rl.kernels import launch


@pytest.fixture
def matmul(monkeypatch):
    """torch's settings of float32 products, as they are again afterwards."""
    legacy = torch.get_float32_matmul_precision()
    yield torch.backends.cuda.matmul
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        torch.backends.cuda.matmul.fp32_precision = "none"
    torch.set_float32_matmul_precision(legacy)


def test_float32_is_exact_unless_less_was_asked_for(matmul):
    assert launch.dot_precision(torch.float32, "sm_90") == "tf32x3"
    torch.set_float32_matmul_precision("high")
    assert launch.dot_precision(torch.float32, "sm_90") == "tf32"
    assert launch.dot_precision(torch.float32, "gfx942") == "ieee"
    torch.set_float32_matmul_precision("highest")
    assert launch.dot_precision(torch.float32, "sm_80") == "tf32x3"
    assert launch.dot_precision(torch.bfloat16, "sm_80") == "tf32"


def test_the_newer_setting_counts_as_well(matmul):
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("torch 2.8 has no such setting")
    matmul.fp32_precision = "tf32"
    assert launch.dot_precision(torch.float32, "sm_90") == "tf32"
    matmul.fp32_precision = "ieee"
    assert launch.dot_precision(torch.float32, "sm_90") == "tf32x3"


def test_gpus_that_the_tiles_do_not_fit_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "T4")
    monkeypatch.setattr(launch, "_too_old", launch._too_old.__wrapped__)
    monkeypatch.setattr(launch, "HAS_TRITON", True)
    reason = launch.why_not_triton(torch.device("cuda", 0), torch.float32)
    assert reason is not None and "8.0 (Ampere) or later, T4 has 7.5" in reason
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert launch.why_not_triton(torch.device("cuda", 0), torch.float32) is None
