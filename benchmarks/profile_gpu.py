"""The mLSTM's sequence on a GPU, kernel by kernel: where its time goes.

    python benchmarks/profile_gpu.py [--dtypes bfloat16 float32] [--out FILE.json]

Forward and backward of the shapes of `kernels_gpu.py`, 3 % of the steps resets, times in
microseconds from torch's profiler. Needs torch and triton alone, and the repository on PYTHONPATH.
Exit status 2 where there is no GPU.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from gpu.cases import MLSTM
from torch.profiler import ProfilerActivity, profile

from xlstm_rl import kernels

RUNS = 8


def sequence(B: int, T: int, H: int, K: int, dtype: torch.dtype) -> Callable[[], object]:
    """Return a run of forward and backward."""
    inputs = [torch.randn(B, T, H, K, device="cuda").to(dtype).requires_grad_() for _ in range(3)]
    for offset in (0.0, 3.0):  # of the input gate and of the forget gate
        gate = torch.randn(B, T, H, device="cuda") + offset
        inputs.append(gate.to(dtype).requires_grad_())
    reset = torch.rand(B, T, device="cuda") < 0.03
    dh = torch.randn(B, T, H, K, device="cuda").to(dtype)

    def run() -> object:
        return torch.autograd.grad(kernels.mlstm(*inputs, reset, backend="triton")[0], inputs, dh)

    return run


def times(run: Callable[[], object]) -> dict[str, float]:
    """Return microseconds of each kernel, the longest first."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(RUNS):
            run()
        torch.cuda.synchronize()
    sums: dict[str, float] = defaultdict(float)
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            sums[event.name] += event.device_time / RUNS
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("profile_gpu: needs a GPU; torch.cuda.is_available() is false", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    found: dict[str, dict[str, float]] = {}
    for dtype in arguments.dtypes:
        for shape in MLSTM:
            name = "mlstm B={} T={} H={} K={} ".format(*shape) + dtype
            found[name] = times(sequence(*shape, getattr(torch, dtype)))
            print(f"{name}: {sum(found[name].values()):.0f} us")
            for kernel, us in found[name].items():
                print(f"  {kernel[:60]:60}{us:10.1f}", flush=True)
    if arguments.out is not None:
        about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
        arguments.out.write_text(json.dumps(about | {"us": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
