"""Tiles of the mLSTM's sequence on a GPU: every kernel's time for many ways to cut a head.

    python benchmarks/tiles_gpu.py [--heads 32 64] [--dtypes bfloat16] --out FILE.jsonl

A line of the output is one choice of `Tiles`: microseconds of each kernel (torch's profiler,
forward and backward, 3 % resets), and the worst difference of h and the gradients to those of the
table's tiles, relative to the largest. Processes compile side by side; a lock keeps what is timed
alone. `kernels/mlstm/triton/tiles.py` is chosen from this. Exit status 2 without a GPU.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from xlstm_rl import kernels
from xlstm_rl.kernels.mlstm.triton import chunkwise
from xlstm_rl.kernels.mlstm.triton.tiles import Tiles

SHAPES = {32: (256, 128, 4), 64: (64, 512, 4), 128: (4, 8192, 8), 256: (4, 2048, 4)}  # B, T, H
BLOCKS = {  # columns multiplied at a time, columns summed up, a block of the state
    32: [(32, 32, 32)],
    64: [(64, 64, 32), (64, 64, 64), (32, 64, 32)],
    128: [(64, 128, 64), (128, 128, 64), (32, 128, 64)],
    256: [(64, 128, 64), (32, 128, 64), (64, 256, 64)],
}
RUNS = 6


def choices(head: int) -> list[Tiles]:
    """Return what is tried for heads of a size."""
    return [
        Tiles(rows, chunk // rows, *blocks, warps, stages)
        for rows, chunk, blocks, warps, stages in itertools.product(
            (16, 32, 64), (32, 64, 128, 256), BLOCKS[head], (1, 2, 4, 8), (1, 2)
        )
        if rows <= chunk and rows * head >= 256 * warps
    ]


def measure(lock: Any, inputs: list[torch.Tensor], expected: Any, tiles: Tiles) -> dict[str, Any]:
    """Compile for a choice, compare with what is expected, time."""
    table = chunkwise.choose_tiles
    chunkwise.choose_tiles = lambda *_: tiles
    try:
        found = run(*inputs)
        worst = max(
            float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)
        )
        torch.cuda.synchronize()
        with lock, profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(RUNS):
                run(*inputs)
            torch.cuda.synchronize()
    finally:
        chunkwise.choose_tiles = table
    us: dict[str, float] = defaultdict(float)
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA and "mlstm" in event.name:
            us[event.name] += event.device_time / RUNS
    return {"total": round(sum(us.values()), 1), "us": us, "worst": worst}


def run(*inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return h and the gradients."""
    *x, reset, dh = inputs
    h = kernels.mlstm(*x, reset, backend="triton")[0]
    return [one.detach().float() for one in (h, *torch.autograd.grad(h, x, dh))]


def make_inputs(head: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return q, k, v, i, f, resets and the gradient of h."""
    B, T, H = SHAPES[head]
    torch.manual_seed(0)
    x = [torch.randn(B, T, H, head, device="cuda").to(dtype) for _ in range(3)]
    x += [(torch.randn(B, T, H, device="cuda") + offset).to(dtype) for offset in (0.0, 3.0)]
    reset = torch.rand(B, T, device="cuda") < 0.03
    dh = torch.randn(B, T, H, head, device="cuda").to(dtype)
    return [*(one.requires_grad_() for one in x), reset, dh]


def work(tasks: Any, lock: Any, results: Any) -> None:
    """Measure what is left to do."""
    last, inputs, expected = None, [], []
    while True:
        try:
            head, dtype, tiles = tasks.get_nowait()
        except Empty:
            return
        line: dict[str, Any] = {"head": head, "dtype": dtype, "tiles": tiles}
        try:
            if last != (head, dtype):
                last, inputs = (head, dtype), make_inputs(head, getattr(torch, dtype))
                expected = run(*inputs)
            line |= measure(lock, inputs, expected, Tiles(*tiles))
        except Exception as error:  # too much shared memory, or the compiler failed: a result too
            line["error"] = f"{type(error).__name__}: {str(error)[-200:]}"
        results.put(line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--seconds", type=float, default=600, help="stop after so many")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("tiles_gpu: needs a GPU; torch.cuda.is_available() is false", file=sys.stderr)
        return 2
    context = multiprocessing.get_context("spawn")
    manager = context.Manager()
    tasks, results, lock = manager.Queue(), manager.Queue(), manager.Lock()
    count, end = 0, time.monotonic() + arguments.seconds
    for dtype, head in itertools.product(arguments.dtypes, arguments.heads):
        for tiles in choices(head):
            tasks.put((head, dtype, tuple(tiles)))
            count += 1
    workers = [
        context.Process(target=work, args=(tasks, lock, results), daemon=True)
        for _ in range(max(1, (os.cpu_count() or 1) - 2))
    ]
    for worker in workers:
        worker.start()
    done = 0
    with arguments.out.open("w") as file:
        while done < count and time.monotonic() < end:
            try:
                line = results.get(timeout=5)
            except Empty:
                if not any(worker.is_alive() for worker in workers):
                    break
                continue
            done += 1
            print(json.dumps(line), file=file, flush=True)
    print(f"{done} of {count} choices in {arguments.out}")
    for worker in workers:
        worker.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
