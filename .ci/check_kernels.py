"""Compile every Triton kernel with every tile of its table for GPUs that are not there.

Prints a table and fails on a kernel that does not compile, spills registers to memory, or needs
more shared memory than its device class has; on a case that raises; and on an entry of a table of
tiles that no case asked for. Needs torch and triton alone, and no GPU.

With --recorded, a kernel that is as it was when the record was written is judged by what the
record says of it; some of these, others each day, are compiled again and have to come out the same.

Usage: check_kernels.py [--kernels mlstm,slstm,conv1d] [--classes sm_80,sm_90,gfx942]
                        [--full] [--json FILE] [--jobs N] [--triton VERSION] [--cases MODULE]
                        [--record FILE | --recorded FILE]
"""

import argparse
import fnmatch
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernel_check.cases import Subject
    from kernel_check.compilation import Build, Job

ROOT = Path(__file__).resolve().parents[1]
OLDEST_TRITON = (3, 6)  # 3.4 keeps ptxas's report to itself, and looks for a linker of ROCm
SHARED_MEMORY = {"sm_80": 99 * 1024, "sm_90": 227 * 1024, "gfx942": 64 * 1024}

SPILLS_ALLOWED: dict[str, str] = {
    "conv1d_bwd_weight_kernel sm_80 bfloat16 sequence C=64 *": "8 bytes, by ptxas's own choice: "
    "with 128 registers, not more, 16 warps fit on a multiprocessor, and memory is the limit",
    "mlstm_d[qkv]_kernel sm_90 *": "up to 1.9 KB: the fastest of 225 choices on an H200; the next "
    "without a spill, with twice the warps, take 1.3 to 2 times as long",
    "mlstm_output_fwd_kernel sm_90 *": "up to 280 bytes: as for its gradients",
    "mlstm_d[qkv]_kernel sm_80 *": "not measured: tiles of sm_90, where they are the fastest",
    "mlstm_output_fwd_kernel sm_80 *": "as for its gradients",
    "slstm_bwd_kernel sm_90 float32 sequence D=64 * HAS_OWN=0 *": "8 bytes; not measured: the next "
    "smaller product has none, but its threads wait for each other four times a step, not twice",
}
"""Why a spill is the faster choice, by a pattern of "kernel class case | tiles", as in the table:
    "mlstm_fwd_kernel sm_80 float32 * K=256 *": "measured on ...: 1.3 times the next smaller tile"
"""


def main() -> None:
    """Make the environment clean, which Triton and torch read when they are imported; check."""
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is removed
    for name in [name for name in os.environ if name.startswith("TRITON_")]:
        del os.environ[name]  # TRITON_INTERPRET above all
    with tempfile.TemporaryDirectory(prefix="kernel_check.") as folder:
        os.environ["TRITON_CACHE_DIR"] = f"{folder}/cache"
        os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"  # 3.9's default, which it warns about
        os.environ["OMP_NUM_THREADS"] = "1"
        sys.path.insert(1, str(ROOT))
        if options.triton:
            site = f"{folder}/site"
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site]
            subprocess.run([*pip, f"triton=={options.triton}"], check=True)
            sys.path.insert(1, site)
        sys.exit(check(options))


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kernels", type=_names, help="operations, with commas; default: all")
    parser.add_argument("--classes", type=_names, default=list(SHARED_MEMORY))
    parser.add_argument("--full", action="store_true", help="every variant for every class")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there as well")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--triton", metavar="VERSION", help="fetch it, and check with it")
    record = parser.add_mutually_exclusive_group()
    record.add_argument("--record", type=Path, metavar="FILE", help="write what came out there")
    record.add_argument("--recorded", type=Path, metavar="FILE", help="compile what is not in it")
    parser.add_argument("--cases", default="kernel_check.cases", metavar="MODULE")
    options = parser.parse_args()
    if unknown := set(options.classes) - set(SHARED_MEMORY):
        parser.error(f"no such class: {', '.join(unknown)}; there are {', '.join(SHARED_MEMORY)}")
    return options


def _names(text: str) -> list[str]:
    return text.split(",")


def check(options: argparse.Namespace) -> int:
    """Collect, compile, print; return the exit status."""
    import torch
    import triton
    from kernel_check.compilation import compile_all
    from kernel_check.record import Record

    if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST_TRITON:
        print(f"triton {triton.__version__} does not hand out what ptxas reports: use 3.6 or newer")
        return 2
    start = time.perf_counter()
    subjects: dict[str, Subject] = importlib.import_module(options.cases).SUBJECTS
    if unknown := set(options.kernels or ()) - set(subjects):
        print(f"no such kernels: {', '.join(unknown)}; there are {', '.join(subjects)}")
        return 2
    distinct: dict[str, Job] = {}
    problems: list[str] = []
    for op in options.kernels or subjects:
        problems += collect(distinct, op, subjects[op], options.classes, options.full)
    jobs = list(distinct.values())
    record = Record.read(options.recorded) if options.recorded else Record({})
    known, due = record.of(distinct), record.due(len(jobs))
    anew = [n for n in range(len(jobs)) if n not in known or n in due]
    print(
        f"triton {triton.__version__}, torch {torch.__version__}: {len(jobs)} kernels, "
        f"{len(anew)} to compile"
    )
    builds, compiled = dict(known), compile_all([jobs[n] for n in anew], options.jobs)
    for done, (n, build) in enumerate(zip(anew, compiled, strict=True), 1):
        builds[n] = build
        if n in known and not same(build, known[n]):
            job = jobs[n]
            problems.append(
                f"{job.kernel.__name__} {job.device_class} {job.case}: {build}, but the record "
                f"says {known[n]}; write it again with --record {options.recorded}"
            )
        if done % 50 == 0:
            print(f"{done} of {len(anew)}, {time.perf_counter() - start:.0f} s", flush=True)
    rows = [row(job, builds[n]) for n, job in enumerate(jobs)]
    print_table(rows)
    problems += [
        f"{r['kernel']} {r['class']} {r['case']}: {r['error']}" for r in rows if r["error"]
    ]
    if options.kernels is None and set(options.classes) == set(SHARED_MEMORY):
        used = {r["allowed by"] for r in rows}
        problems += [f"no spill needs {p!r} any more" for p in SPILLS_ALLOWED if p not in used]
    for problem in problems:
        print(f"error: {problem}")
    wrong_rows = [r for r in rows if not r["verdict"].startswith("ok")]
    seconds = time.perf_counter() - start
    print(
        f"{len(rows)} kernels, {len(wrong_rows)} that are not ok, {len(problems)} errors, "
        f"{sum(builds[n].seconds for n in anew):.0f} s of compilation in {seconds:.0f} s"
    )
    if options.json:
        report = {"triton": triton.__version__, "torch": torch.__version__, "seconds": seconds}
        options.json.write_text(json.dumps(report | {"errors": problems, "rows": rows}, indent=1))
    if options.record and not problems and not wrong_rows:
        Record.made_of(distinct, builds).write(options.record)
    return 1 if problems or wrong_rows or not rows else 0


def collect(
    jobs: "dict[str, Job]", op: str, subject: "Subject", device_classes: list[str], full: bool
) -> list[str]:
    """Add to ``jobs`` what is new in an operation; return what went wrong."""
    from kernel_check import coverage
    from kernel_check.compilation import Job, specialization

    from xlstm_rl.kernels import launch

    problems = []
    table = coverage.Watched({})
    try:
        table = coverage.watch(importlib.import_module(subject.tiles))
    except (ImportError, TypeError) as error:
        problems.append(f"{op}: {error}")
    for device_class in device_classes:
        turn = itertools.cycle(launch.DEVICE_CLASSES)
        for case in subject.cases():
            if case.variant and next(turn) != device_class and not full:
                continue
            try:
                with launch.recording(device_class) as recording:
                    case.run()
                if not recording.launches:
                    raise RuntimeError("nothing was launched")
                for kernel, arguments in recording.launches:
                    job = Job(op, case.name, device_class, kernel, arguments)
                    jobs.setdefault(specialization(job), job)
            except Exception as error:
                told = f"{type(error).__name__}: {error}"
                problems.append(f"{op} {device_class} {case.name}: {told}")
    missed = coverage.never_met(table, set(launch.DEVICE_CLASSES) - set(device_classes))
    return problems + [f"{op}: no case met the tiles of {m}" for m in missed]


def row(job: "Job", build: "Build") -> dict[str, Any]:
    """Judge a compilation."""
    name = f"{job.kernel.__name__} {job.device_class} {job.case} | {job.tiles}"
    limit = SHARED_MEMORY[job.device_class]
    allowed = ""
    if build.error:
        verdict = "ERROR"
    elif build.shared > limit:
        verdict = f"SHARED MEMORY over {limit}"
    elif build.spills:
        allowed = next((p for p in SPILLS_ALLOWED if fnmatch.fnmatchcase(name, p)), "")
        verdict = f"ok: {SPILLS_ALLOWED[allowed]}" if allowed else "SPILLS"
    else:
        verdict = "ok"
    if build.note:
        verdict += f" ({build.note})"
    about = {"op": job.op, "kernel": job.kernel.__name__, "class": job.device_class}
    about |= {"case": job.case, "tiles": job.tiles}
    return {**about, **asdict(build), "verdict": verdict, "allowed by": allowed}


def same(build: "Build", known: "Build") -> bool:
    """Whether two builds differ in nothing but the time that they took."""
    return {**asdict(build), "seconds": 0} == {**asdict(known), "seconds": 0}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the columns that a reader looks for, as wide as they need to be."""
    columns = ["kernel", "class", "case", "tiles", "registers", "spills", "shared", "seconds"]
    lines = [[*columns, "verdict"]]
    for r in sorted(rows, key=lambda r: (r["op"], r["kernel"], r["class"])):
        shown = r | {"seconds": f"{r['seconds']:.1f}", "spills": r["spills"] or "0"}
        lines.append([str(shown[column]) for column in [*columns, "verdict"]])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
