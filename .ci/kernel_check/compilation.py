"""Compile recorded launches for devices that are not there, the way Triton's own JIT does it.

Triton asks its driver which device is present. The driver below answers with the class under
check, so `kernel.warmup` specialises the arguments (divisible by 16, equal to 1, within 2 GB) and
compiles as a launch on that device would, whatever the version of Triton.
"""

import io
import multiprocessing
import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
AMD_COUNTS = ("vgpr_count", "vgpr_spill_count", "sgpr_spill_count", "private_segment_fixed_size")


@dataclass
class Job:
    """A launch that differs from all others in what is compiled for it."""

    op: str
    case: str
    device_class: str
    kernel: Any
    arguments: dict[str, Any]

    @property
    def tiles(self) -> str:
        """The values that the kernel is compiled for, and its warps and stages."""
        names = [p.name for p in self.kernel.params if p.is_constexpr]
        options = [name for name in self.arguments if name not in self.kernel.arg_names]
        shown = {name: self.arguments[name] for name in names + options if name in self.arguments}
        return " ".join(f"{n}={int(v) if v in (0, 1) else v}" for n, v in shown.items())


@dataclass
class Build:
    """What came out of a compilation; `error` is what it ended with where it failed."""

    registers: int = 0
    spills: str = ""
    shared: int = 0
    note: str = ""
    error: str = ""
    seconds: float = 0.0  # of the processor, the compilers that it starts included


class AbsentDevice:
    """Stands in for Triton's driver of a GPU."""

    def __init__(self) -> None:
        self.device_class = ""

    def get_current_device(self) -> str:
        """The class under check: Triton keeps what it compiled under this."""
        return self.device_class

    def get_current_stream(self, device: str) -> int:
        """Any: nothing is launched."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """What is compiled for."""
        return TARGETS[self.device_class]


_device = AbsentDevice()
_jobs: list[Job] = []  # forked processes find their job here: kernels cannot be pickled


def specialization(job: Job) -> str:
    """Return the key under which Triton would keep the compiled kernel; compile nothing."""
    keys: list[str] = []

    def note_and_stop(*, key: str, **_: Any) -> bool:
        keys.append(key)
        return True

    driver.set_active(_device)
    _device.device_class = job.device_class
    before, knobs.runtime.jit_cache_hook = knobs.runtime.jit_cache_hook, note_and_stop
    try:
        job.kernel.warmup(grid=(1,), **job.arguments)
    finally:
        knobs.runtime.jit_cache_hook = before
    return f"{job.device_class} {job.kernel.__module__}.{job.kernel.__qualname__} {keys[0]}"


def compile_all(jobs: list[Job], processes: int) -> Iterator[Build]:
    """Compile in parallel processes, in order; one that takes its process down is an error."""
    _jobs[:] = jobs
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(processes, mp_context=context)
    try:
        futures = [pool.submit(_compile, n) for n in range(len(jobs))]
        for n, future in enumerate(futures):
            try:
                yield future.result()
            except BrokenProcessPool:  # some job crashed, this one or another: try it alone
                with ProcessPoolExecutor(1, mp_context=context) as alone:
                    try:
                        yield alone.submit(_compile, n).result()
                    except BrokenProcessPool:
                        yield Build(error="the compiler crashed")
    finally:
        pool.shutdown(cancel_futures=True)  # what has not begun, if this ends early


def _compile(n: int) -> Build:
    job, log, start = _jobs[n], io.StringIO(), sum(os.times()[:4])
    os.environ["TRITON_DUMP_PTXAS_LOG"] = "1"  # ptxas's report goes to the standard output
    os.environ["TRITON_ALWAYS_COMPILE"] = "1"
    _device.device_class = job.device_class
    try:
        with redirect_stdout(log):
            compiled = job.kernel.warmup(grid=(1,), **job.arguments)
        build = _from_amdgcn(compiled) if "amdgcn" in compiled.asm else _from_ptxas(log.getvalue())
        build.shared = compiled.metadata.shared
    except Exception as error:
        build = Build(error=f"{type(error).__name__}: {error}".strip())
    build.seconds = sum(os.times()[:4]) - start
    return build


def _from_ptxas(log: str) -> Build:
    """Read `ptxas -v`: a kernel and the functions that were not inlined into it."""
    registers = re.findall(r"Used (\d+) registers", log)
    stores, loads, frame = (
        sum(map(int, re.findall(rf"(\d+) bytes {what}", log)))
        for what in ("spill stores", "spill loads", "stack frame")
    )
    if not registers or "bytes spill stores" not in log:
        raise RuntimeError(f"ptxas reported no registers or no spills: {log!r}")
    spills = f"{stores}+{loads} B" if stores or loads else f"stack {frame} B" if frame else ""
    losses = re.findall(r"Potential Performance Loss: (.*?)(?: in function .*)?$", log, re.M)
    return Build(max(map(int, registers)), spills, note="; ".join(dict.fromkeys(losses)))


def _from_amdgcn(compiled: Any) -> Build:
    """Read the metadata at the end of the assembly."""
    found = {name: re.search(rf"\.{name}:\s+(\d+)", compiled.asm["amdgcn"]) for name in AMD_COUNTS}
    if None in found.values():
        raise RuntimeError(f"the assembly lacks some of {', '.join(AMD_COUNTS)}")
    count = {name: int(match[1]) for name, match in found.items() if match}
    parts = [("vgpr_spill_count", "{} vector"), ("sgpr_spill_count", "{} scalar")]
    parts += [("private_segment_fixed_size", "stack {} B")]
    spills = ", ".join(text.format(count[name]) for name, text in parts if count[name])
    return Build(count["vgpr_count"], spills)
