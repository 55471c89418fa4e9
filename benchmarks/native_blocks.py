"""Time whole blocks in C against the same on torch, alternating, on one thread.

    python benchmarks/native_blocks.py [--rounds 40] [--threads 1]

Each line: the median of CPU times, which a busy machine disturbs less than wall time, and the
median of the ratios of neighbours. Training is a forward and a backward.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch

from xlstm_rl.kernels import backends, slstm
from xlstm_rl.memory import Memory, MemoryConfig, baselines, make_memory

SHAPES = ((4, 128), (16, 16), (16, 128), (64, 128), (8, 1024), (1, 8192))
"""Sequences by steps."""

Run = Callable[[], None]


def memories(pattern: str, width: int) -> tuple[Memory, Memory]:
    """The same memory on native code and on torch."""
    torch.manual_seed(0)
    native, plain = (
        make_memory(MemoryConfig(pattern=pattern, width=width, final_norm=False, backend=backend))
        for backend in ("native", "torch")
    )
    plain.load_state_dict(native.state_dict())
    return native, plain


def training(memory: Memory, B: int, T: int, episode: int = 0) -> Run:
    """A forward and a backward of B sequences of T steps, with resets every `episode` steps."""
    x = torch.randn(B, T, memory.width, requires_grad=True)
    reset = torch.zeros(B, T, dtype=torch.bool)
    if episode:
        reset[:, ::episode] = True
    dy = torch.randn(B, T, memory.width)

    def run() -> None:
        y, _ = memory.forward_tensors(x, None, reset)
        y.backward(dy)
        memory.zero_grad(set_to_none=True)
        x.grad = None

    return run


def acting(memory: Memory, B: int) -> Run:
    """Steps of B environments, in place: 10 of them."""
    x, reset = torch.randn(B, memory.width), torch.zeros(B, dtype=torch.bool)
    state = tuple(torch.zeros(B, *shape) for shape in memory.state_shapes)

    def run() -> None:
        with torch.no_grad():
            for _ in range(10):
                memory.step_tensors(x, state, reset, inplace=True)

    return run


def scanning(backend: str, B: int, T: int, H: int, D: int) -> Run:
    """A forward and a backward of the sLSTM cell alone, with resets now and then."""
    torch.manual_seed(0)
    x, b = torch.randn(B, T, 4, H, D, requires_grad=True), torch.randn(4, H, D, requires_grad=True)
    R = (torch.randn(4, H, D, D) * D**-0.5).requires_grad_()
    reset, dy = torch.rand(B, T) < 0.02, torch.randn(B, T, H, D)

    def run() -> None:
        y, _ = slstm(x, R, b, reset, backend=backend)
        torch.autograd.grad(y, (x, R, b), dy)

    return run


def on_torch(run: Run) -> Run:
    """An LSTM or a GRU, which has no option of a backend, without native code."""

    def without() -> None:
        with mock.patch.object(baselines, "takes_native", lambda *_, **__: False):
            run()

    return without


def compare(first: Run, second: Run, rounds: int) -> tuple[float, float, float]:
    """Median times of both, in seconds, and the median ratio of the second to the first."""
    times: list[tuple[float, float]] = []
    for number in range(rounds + 3):
        pair = cpu_time(first), cpu_time(second)
        if number >= 3:
            times.append(pair)
    a, b = (statistics.median(t) for t in zip(*times, strict=True))
    return a, b, statistics.median(b / a for a, b in times)


def cpu_time(run: Run) -> float:
    """CPU time of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def report(name: str, first: Run, second: Run, rounds: int, unit: float = 1e3) -> None:
    """Print one line; the unit turns seconds into what is printed."""
    a, b, ratio = compare(first, second, rounds)
    print(f"{name:44s} {a * unit:9.2f} {b * unit:9.2f} {ratio:7.2f}", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(backends()["native"].about)
    for pattern, name in (("m", "mLSTM"), ("s", "sLSTM")):
        native, plain = memories(pattern, 128)
        print(f"\n{name + ' block, width 128':44s} {'native':>9s} {'torch':>9s}   ratio")
        for B, T in SHAPES:
            rounds = max(5, min(options.rounds, options.rounds * 512 // (B * T)))
            pair = (training(m, B, T) for m in (native, plain))
            report(f"training [{B}, {T}], ms", *pair, rounds)
        pair = training(native, 4, 128, 20), training(native, 4, 128)
        report("episodes of 20 steps against none, ms", *pair, options.rounds)
        for B, width in ((16, 128), (1, 128), (1, 64)):
            pair = (acting(m, B) for m in memories(pattern, width))
            report(f"acting, {B} environments, width {width}, us", *pair, options.rounds, 1e5)
    print(f"\n{'sLSTM cell':44s} {'native':>9s} {'torch':>9s}   ratio")
    for B, T, H, D in ((4, 128, 4, 32), (4, 128, 4, 16), (16, 128, 4, 32), (4, 128, 2, 64)):
        pair = scanning("native", B, T, H, D), scanning("torch", B, T, H, D)
        report(f"training [{B}, {T}, 4, {H}, {D}], ms", *pair, options.rounds)
    for kind in ("lstm", "gru"):
        memory = make_memory(MemoryConfig(kind=kind, width=128))
        print(f"\n{kind.upper() + ', width 128':44s} {'native':>9s} {'torch':>9s}   ratio")
        for B, T, episode in ((4, 128, 0), (4, 128, 20), (16, 128, 20)):
            run = training(memory, B, T, episode)
            name = f"training [{B}, {T}], episodes of {episode or T} steps, ms"
            report(name, run, on_torch(run), options.rounds)
        for B in (16, 1):
            run = acting(memory, B)
            report(f"acting, {B} environments, us", run, on_torch(run), options.rounds, 1e5)


if __name__ == "__main__":
    main()
