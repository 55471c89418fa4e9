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


@pytest.fixture
def unknown_gpu():
    """What was seen of a GPU is looked up again, and forgotten afterwards."""
    launch._capability_too_low.cache_clear()
    yield
    launch._capability_too_low.cache_clear()


@pytest.mark.usefixtures("unknown_gpu")
def test_gpus_that_the_tiles_do_not_fit_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "T4")
    monkeypatch.setattr(launch, "HAS_TRITON", True)
    reason = launch.why_not_triton(torch.device("cuda", 0), torch.float32)
    assert reason is not None and "8.0 (Ampere) or later, T4 has 7.5" in reason
    launch._capability_too_low.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert launch.why_not_triton(torch.device("cuda", 0), torch.float32) is None


@pytest.mark.usefixtures("unknown_gpu")
def test_dynamo_takes_the_choice_for_a_constant(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(launch, "HAS_TRITON", True)

    def run(x):
        why = launch.why_not_triton(torch.device("cuda", 0), torch.float32)
        return x + (1 if why is None else 0)

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(torch.zeros(2)), torch.ones(2))


def test_a_tile_of_steps_is_never_wider_than_32_bits():
    ops = pytest.importorskip("xlstm_rl.kernels.mlstm.triton.ops")
    T, H, K = 64, 8, 64
    for B in (4, 2**19):  # where time is the outermost axis, a step is B H K elements
        q = torch.empty(T, B, H, K, device="meta").transpose(0, 1)
        gate = torch.empty(B, T, H, device="meta")
        with launch.recording("sm_90") as recording:
            ops.mlstm(q, q, q, gate, gate, None, None, 64, "sigmoid")
        arguments = next(a for _, a in recording.launches if "stride_kt" in a)
        assert arguments["stride_kt"] == (B if B == 4 else 1) * H * K
