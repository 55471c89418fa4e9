"""What runs here, and why the rest does not."""

from dataclasses import dataclass

import torch

from xlstm_rl.kernels.launch import interpreting, why_not_triton
from xlstm_rl.kernels.native import choose, library


@dataclass(frozen=True)
class Backend:
    """Whether a backend runs, and what it is there, or why it does not run."""

    runs: bool
    about: str


def backends(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, Backend]:
    """Return what each ``backend`` means for inputs of a device and a dtype.

    Args:
        device: of the inputs.
        dtype: of the inputs.

    Returns:
        For each name whether it runs, and a line about it. That of ``"auto"`` is the name of the
        backend that it takes.
    """
    device = torch.device(device)
    not_native = choose.why_not(device, dtype)
    not_triton = why_not_triton(device, dtype)
    threads = library.num_threads()
    how_triton = "interpreted on the CPU" if interpreting() else f"on {device}"
    auto = "torch"
    if not_native is None:
        auto = "native"
    elif not_triton is None and device.type == "cuda":
        auto = "triton"
    return {
        "auto": Backend(True, auto),
        "reference": Backend(True, "the equations, step by step"),
        "torch": Backend(True, "PyTorch's operations"),
        "native": Backend(
            not_native is None,
            not_native or f"C for {library.target()}, {threads} thread{'s' * (threads > 1)}",
        ),
        "triton": Backend(not_triton is None, not_triton or how_triton),
    }
