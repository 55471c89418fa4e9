"""Where every Triton kernel is started: one door, so that a check can see what would run.

Triton is imported by the modules that hold kernels, and those only once a kernel is wanted.
"""

import functools
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

DEVICE_CLASSES = ("sm_80", "sm_90", "gfx942")
"""For each there are tiles, held to compile without a spill: NVIDIA's Ampere and Ada (within the
99 KiB of shared memory that its smaller cards have), Hopper and later, and AMD's CDNA 3."""

TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_HEAD_SIZE = 256
HAS_TRITON = importlib.util.find_spec("triton") is not None


@dataclass
class Recording:
    """Launches that were asked for, not carried out: kernel and arguments by name."""

    device_class: str
    launches: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)


_recording: Recording | None = None


def why_not_triton(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the Triton kernels cannot run there, with what to do; ``None`` where they can."""
    if not HAS_TRITON:
        return "the package triton is not installed: pip install triton"
    if dtype not in TRITON_DTYPES:
        return f"its kernels take float32, bfloat16 and float16, not {str(dtype)[6:]}"
    if device.type == "cuda":
        return _too_old(device.index)
    if device.type == "cpu" and interpreting():
        return None
    return (
        f"the inputs are on {device}: move them to a CUDA or ROCm device, or set "
        "TRITON_INTERPRET=1 before Triton is imported to have them interpreted on the CPU"
    )


def _too_old(index: int | None) -> str | None:
    return _capability_too_low(index)


# What torch.compiler.assume_constant_result does, which would import Dynamo and with it Triton; the
# cache alone would make Dynamo warn.
_too_old.__dict__["_dynamo_marked_constant"] = True


@functools.cache
def _capability_too_low(index: int | None) -> str | None:
    if torch.version.hip is not None or torch.cuda.get_device_capability(index) >= (8, 0):
        return None
    major, minor = torch.cuda.get_device_capability(index)
    return (
        "its kernels need an NVIDIA GPU of compute capability 8.0 (Ampere) or later, "
        f"{torch.cuda.get_device_name(index)} has {major}.{minor}"
    )


def interpreting() -> bool:
    """Whether Triton's interpreter runs the kernels, on the CPU and slowly, for their numbers."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def device_class(device: torch.device) -> str:
    """Which of `DEVICE_CLASSES` has the tiles for ``device``."""
    if _recording is not None:
        return _recording.device_class
    if device.type != "cuda":
        return "sm_90"
    return _class_of(device.index)


@functools.cache
def _class_of(index: int) -> str:
    if torch.version.hip is not None:
        return "gfx942"
    return "sm_90" if torch.cuda.get_device_capability(index) in ((9, 0), (10, 0)) else "sm_80"


def dot_precision(dtype: torch.dtype, device_class: str) -> str:
    """How ``tl.dot`` is to multiply: float32 exactly, unless torch was told that less will do.

    ``tf32x3`` has float32's accuracy on tensor cores, by three products of the halves of each
    number; ``torch.set_float32_matmul_precision("high")`` or
    ``torch.backends.cuda.matmul.fp32_precision = "tf32"`` ask for a single one.

    Args:
        dtype: of the operands.
        device_class: one of `DEVICE_CLASSES`.
    """
    if dtype is not torch.float32 or tf32_will_do():
        return "tf32" if device_class != "gfx942" else "ieee"
    return "ieee" if device_class == "gfx942" else "tf32x3"


def tf32_will_do() -> bool:
    """Whether torch was told that TF32's ten bits suffice for products of float32."""
    # torch 2.9 and later: set by the older function too, which cannot be asked once this was used
    precision = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    if precision is None:
        return torch.get_float32_matmul_precision() != "highest"
    return precision not in ("none", "ieee")


def launch(device: torch.device, kernel: Any, grid: tuple[int, ...], **arguments: Any) -> None:
    """Start ``kernel`` on ``device`` with its arguments by name, ``num_warps`` and so on included.

    The first axis of ``grid`` may be long (2^31 - 1; on AMD 2^32 threads), the others not (65,535).
    """
    # multiply-adds in one rounding, asked for by name: the default differs between Tritons
    arguments["enable_fp_fusion"] = True
    if _recording is not None:
        _recording.launches.append((kernel, arguments))
    elif device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[grid](**arguments)
    else:
        kernel[grid](**arguments)


@contextmanager
def recording(device_class: str) -> Iterator[Recording]:
    """Collect the launches of a device class without carrying them out; use meta tensors."""
    global _recording
    before, _recording = _recording, Recording(device_class)
    try:
        yield _recording
    finally:
        _recording = before
