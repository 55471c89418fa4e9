"""What the device is, and what it can do at most, measured."""

import platform
from collections.abc import Callable
from importlib import metadata

import torch
from torch import Tensor

from gpu.floors import Rates
from gpu.timing import Run, Timer, compare

PACKAGES = ("torch", "triton", "torchrl", "mlstm_kernels", "flashrnn")


def describe(device: torch.device) -> dict[str, object]:
    """Name, driver and versions."""
    about: dict[str, object] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            about[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            about[package] = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {
            "device": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "processors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": properties.L2_cache_size,
            "cuda": torch.version.cuda,
            "hip": torch.version.hip,
        }
    else:
        about["device"] = "cpu"
    return about


def measure_rates(timer: Timer, repeats: int, side: int = 8192, copied: int = 1 << 30) -> Rates:
    """Measure bandwidth by a copy, arithmetic by square products, and the smallest launch."""
    device = timer.device
    source = torch.zeros(copied // 4, device=device)
    target = torch.empty_like(source)
    one = torch.zeros(1, device=device)
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    low_a, low_b = a.bfloat16(), b.bfloat16()
    runs: dict[str, Run] = {
        "copy": lambda: target.copy_(source),
        "bfloat16": lambda: low_a @ low_b,
        "tf32": at_precision("high", lambda: a @ b),
        "float32": at_precision("highest", lambda: a @ b),
        "launch": lambda: one.add_(1),
    }
    for run in runs.values():
        run()
    samples = compare(runs, timer, repeats, 10.0)
    best = {name: min(sample.device) for name, sample in samples.items()}
    operations = 2 * side**3
    tf32 = operations / best["tf32"]
    return Rates(
        copy=2 * copied / best["copy"],
        bfloat16=operations / best["bfloat16"],
        tf32=tf32,
        float32=max(operations / best["float32"], tf32 / 3),
        launch=best["launch"],
    )


def at_precision(precision: str, run: Callable[[], Tensor | tuple[Tensor, ...]]) -> Run:
    """`run`, with products of float32 at that precision of torch's setting."""

    def inside() -> object:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            return run()
        finally:
            torch.set_float32_matmul_precision(before)

    return inside
