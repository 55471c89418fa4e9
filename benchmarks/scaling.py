"""Cost of training against sequence length: time per gradient step and peak memory.

    python benchmarks/scaling.py [--pattern m] [--batch 4]

Each length runs in a process of its own, so that its peak memory is its own. Prints time and peak
memory at T = 128 ... 4096 and the exponents of both (1: linear).
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from typing import Any

import numpy as np
import torch

LENGTHS = (128, 256, 512, 1024, 2048, 4096)


def measure(pattern: str, batch: int, length: int, repeats: int) -> tuple[float, float]:
    """Return the median seconds of a gradient step and the peak MiB above the start."""
    from xlstm_rl.memory import MemoryConfig, make_memory

    torch.set_num_threads(1)
    torch.manual_seed(0)
    memory = make_memory(MemoryConfig(pattern=pattern, width=64))
    x = torch.randn(batch, length, 64)
    reset = torch.rand(batch, length) < 0.03
    # A short sequence first: what the first call of every operation allocates is no cost of T.
    memory(x[:, :64], None, reset[:, :64])[0].square().mean().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        memory(x, None, reset)[0].square().mean().backward()
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return statistics.median(times), peak / 1024


def _child(queue: Any, *arguments: Any) -> None:
    queue.put(measure(*arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pattern", default="m")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    print(f"pattern {arguments.pattern}, batch {arguments.batch}, width 64, one thread")
    print(f"{'T':>6}{'ms':>10}{'us/step':>10}{'peak MiB':>10}{'KiB/step':>10}")
    for length in LENGTHS:
        queue = context.Queue()
        job = (queue, arguments.pattern, arguments.batch, length, arguments.repeats)
        process = context.Process(target=_child, args=job)
        process.start()
        seconds, mib = queue.get()
        process.join()
        rows.append((length, seconds, mib))
        print(
            f"{length:6}{seconds * 1e3:10.1f}{seconds / length * 1e6:10.1f}"
            f"{mib:10.1f}{mib * 1024 / length:10.1f}"
        )
    log_t, log_s, log_m = np.log(np.array(rows, dtype=float)).T
    print(f"exponent of time   {np.polyfit(log_t, log_s, 1)[0]:.2f}")
    print(f"exponent of memory {np.polyfit(log_t, log_m, 1)[0]:.2f}")


if __name__ == "__main__":
    main()
