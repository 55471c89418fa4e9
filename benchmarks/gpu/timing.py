"""How long runs take, several of them in turn; on a GPU by its own clock."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

Run = Callable[[], object]
MOST_FLUSHES = 200  # more launches than about 1000 would not fit into the GPU's queue
WALL_ROUNDS, WALL_SECONDS = 5, 0.2


@dataclass
class Sample:
    """Seconds of each run, on the device and by the wall clock of a caller who waits."""

    device: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds on the device."""
        return statistics.median(self.device)


class Timer:
    """Times single runs; on a GPU with a cold L2 cache and with the launches already queued.

    Before a run a buffer of four times the L2 cache is read, so that nothing useful is left in it
    and nothing is left to be written back, often enough that the host has queued the whole run
    before the GPU comes to it. So the time is the GPU's and not that of Python.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on_gpu = device.type == "cuda"
        if self.on_gpu:
            cache = torch.cuda.get_device_properties(device).L2_cache_size
            self._buffer = torch.zeros(max(4 * cache, 1 << 28) // 4, device=device)
            self._flush()
            self.sync()
            start = time.perf_counter()
            for _ in range(50):
                self._flush()
            queued = time.perf_counter() - start
            self.sync()
            # what one flush gives the host to get ahead
            self._lead = max((time.perf_counter() - start - queued) / 50, 1e-6)

    def sync(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def _flush(self) -> None:
        self._buffer.sum()

    def wall(self, run: Run) -> tuple[float, float]:
        """Seconds until `run` came back, and until the device was done as well."""
        self.sync()
        start = time.perf_counter()
        run()
        back = time.perf_counter() - start
        self.sync()
        return back, time.perf_counter() - start

    def on_device(self, run: Run, host_seconds: float) -> float:
        """Seconds of `run` on the device; it takes the host `host_seconds` to queue it."""
        if not self.on_gpu:
            return self.wall(run)[1]
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flushes = 1 + int(1.5 * host_seconds / self._lead)
        for _ in range(min(flushes, MOST_FLUSHES)):
            self._flush()
        start.record()
        run()
        end.record()
        end.synchronize()
        return 1e-3 * float(start.elapsed_time(end))


def compare(
    runs: Mapping[str, Run], timer: Timer, repeats: int, seconds: float
) -> dict[str, Sample]:
    """Time all `runs` in turn, in a changing order, after they have been warmed up.

    A run stops taking part once it has used up its share of `seconds`, but not before its third
    turn, so that a slow one does not hold up the others.
    """
    samples = {name: Sample() for name in runs}
    queue: dict[str, float] = {}
    for name, run in runs.items():
        times: list[tuple[float, float]] = []
        while timer.on_gpu and len(times) < WALL_ROUNDS and sum(t for _, t in times) < WALL_SECONDS:
            times.append(timer.wall(run))
        queue[name] = min((back for back, _ in times), default=0.0)
        samples[name].wall = [done for _, done in times]
    spent = dict.fromkeys(runs, 0.0)
    names = list(runs)
    for turn in range(repeats):
        shift = turn % max(len(names), 1)
        for name in names[shift:] + names[:shift]:
            if turn >= 3 and spent[name] > seconds / len(names):
                continue
            start = time.perf_counter()
            samples[name].device.append(timer.on_device(runs[name], queue[name]))
            spent[name] += time.perf_counter() - start
    return samples


def paired_ratio(a: Sample, b: Sample) -> float:
    """The median over the turns of the time of `a` over that of `b` in the same turn."""
    return statistics.median(x / y for x, y in zip(a.device, b.device, strict=False))
