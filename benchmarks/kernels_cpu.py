"""Milliseconds of CPU time of the kernels on one thread, torch beside reference, side by side.

    python benchmarks/kernels_cpu.py [--repeats 20]

Forward and backward of a loss on the outputs. CPU time of the thread, the median of the repeats,
so that a busy machine disturbs little; the reference runs a tenth of the repeats.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from xlstm_rl import kernels

MLSTM_SHAPES = [(2, 128, 4, 32), (4, 128, 4, 64), (16, 128, 4, 64), (1, 4096, 4, 32)]
SLSTM_SHAPES = [(4, 128, 4, 16), (4, 128, 4, 32), (16, 128, 4, 16)]
CONV_SHAPES = [(4, 128, 128), (16, 128, 128)]


def milliseconds(run: Callable[[], object], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        run()
        times.append(time.thread_time() - start)
    return 1e3 * statistics.median(times)


def compare(
    name: str, shape: object, call: Callable[[str], Tensor], xs: list[Tensor], n: int
) -> None:
    def train(backend: str) -> object:
        h = call(backend)
        return torch.autograd.grad(h, xs, torch.ones_like(h))

    def act(backend: str) -> object:
        with torch.no_grad():
            return call(backend)

    figures = []
    for run in (act, train):
        fast = milliseconds(lambda run=run: run("torch"), n)
        slow = milliseconds(lambda run=run: run("reference"), max(1, n // 10))
        figures.append(f"{fast:9.2f} {slow:9.1f} {slow / fast:6.1f}x")
    print(f"{name:28} {shape!s:18}", *figures, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    n = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one thread")
    print(f"{'':47} {'forward':>28} {'forward + backward':>28}")
    print(f"{'':47}" + f"{'torch ms':>10} {'reference':>9} {'ratio':>7}" * 2)

    for B, T, H, K in MLSTM_SHAPES:
        xs = [torch.randn(B, T, H, K, requires_grad=True) for _ in range(3)]
        xs += [torch.randn(B, T, H, requires_grad=True) for _ in range(2)]
        reset = torch.rand(B, T) < 0.02
        for label, r in (("mlstm", None), ("mlstm, resets", reset)):
            compare(
                label,
                (B, T, H, K),
                lambda b, r=r, xs=xs: kernels.mlstm(*xs, r, backend=b)[0],
                xs,
                n,
            )
    for B, T, H, D in SLSTM_SHAPES:
        xs = [
            torch.randn(s, requires_grad=True) for s in ((B, T, 4, H, D), (4, H, D, D), (4, H, D))
        ]
        reset = torch.rand(B, T) < 0.02
        for label, r in (("slstm", None), ("slstm, resets", reset)):
            compare(
                label,
                (B, T, H, D),
                lambda b, r=r, xs=xs: kernels.slstm(*xs, r, backend=b)[0],
                xs,
                n,
            )
    for B, T, C in CONV_SHAPES:
        xs = [torch.randn(s, requires_grad=True) for s in ((B, T, C), (C, 4), (C,))]
        reset = torch.rand(B, T) < 0.02
        for label, r in (("causal_conv1d", None), ("causal_conv1d, resets", reset)):
            compare(
                label,
                (B, T, C),
                lambda b, r=r, xs=xs: kernels.causal_conv1d(*xs, r, backend=b)[0],
                xs,
                n,
            )


if __name__ == "__main__":
    main()
