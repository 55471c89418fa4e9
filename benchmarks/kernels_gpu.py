"""The kernels on a GPU beside their floors and their rivals, all in one run.

    python benchmarks/kernels_gpu.py [--only mlstm] [--out FILE] [--check]
    python benchmarks/kernels_gpu.py --dry-run

Needs torch and triton alone, and the repository on PYTHONPATH; rivals and the policy step are
measured where their packages are installed. Exit status: 0, or with `--check` 1 if an aim is
missed; 2 where there is no GPU. How it measures: benchmarks/README.md.
"""

import argparse
import re
import sys
from pathlib import Path

import torch
from gpu import aims, report
from gpu.cases import Case, all_cases
from gpu.device import describe, measure_rates
from gpu.measure import Row, run_case
from gpu.timing import Timer

from xlstm_rl.kernels.launch import interpreting


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a pattern that a case's line must contain")
    parser.add_argument("--repeats", type=int, default=50, help="timed runs of each contender")
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing for each case")
    parser.add_argument("--no-rivals", action="store_true", help="our own kernels only")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/kernels-...json")
    parser.add_argument("--check", action="store_true", help="exit with 1 if an aim is missed")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the cases; with TRITON_INTERPRET=1 also run each at a tiny size on the CPU",
    )
    arguments = parser.parse_args()
    cases = [
        case
        for case in all_cases(with_rivals=not arguments.no_rivals)
        if re.search(arguments.only, case.name)
    ]
    if not cases:
        parser.error(f"--only {arguments.only!r} fits no case; --dry-run lists them")
    torch.manual_seed(0)
    if arguments.dry_run:
        return dry_run(cases, arguments)
    if not torch.cuda.is_available() or interpreting():
        why = "TRITON_INTERPRET is set" if interpreting() else "torch.cuda.is_available() is false"
        print(f"kernels_gpu: needs a GPU, and {why}; --dry-run works here", file=sys.stderr)
        return 2
    device = torch.device("cuda", torch.cuda.current_device())
    out = arguments.out or report.default_path(torch.cuda.get_device_name(device))
    rows = run(cases, device, arguments, out)
    verdicts = [verdict for row in rows for verdict in aims.judge(row)]
    report.print_verdicts(verdicts)
    print(f"written to {out}")
    return int(arguments.check and not all(verdict.met for verdict in verdicts))


def run(
    cases: list[Case], device: torch.device, arguments: argparse.Namespace, out: Path | None
) -> list[Row]:
    """Measure the device, then each case; print and write down as it goes."""
    timer = Timer(device)
    about = describe(device)
    # off a GPU only whether all this runs is of interest
    size = {} if timer.on_gpu else {"side": 64, "copied": 1 << 16}
    rates = measure_rates(timer, min(arguments.repeats, 20), **size)
    report.print_rates(about, rates)
    rows: list[Row] = []
    for case in cases:
        rows.append(run_case(case, timer, rates, arguments.repeats, arguments.seconds))
        report.print_row(rows[-1])
        if timer.on_gpu:
            torch.cuda.empty_cache()
        if out is not None:
            verdicts = [verdict for row in rows for verdict in aims.judge(row)]
            report.save(out, about, rates, rows, verdicts)
    return rows


def dry_run(cases: list[Case], arguments: argparse.Namespace) -> int:
    """Print bytes and operations; under the interpreter run each case once, shrunk."""
    for case in cases:
        report.print_case(case)
    if not interpreting():
        print("\nwith TRITON_INTERPRET=1 each case would also run here at a tiny size")
        return 0
    print(
        "\non the CPU, under Triton's interpreter: only whether they run and agree is of interest"
    )
    shrunk = {
        case.name: case
        for case in all_cases(tiny=True, with_rivals=not arguments.no_rivals)
        if (case.op, case.dtype) in {(given.op, given.dtype) for given in cases}
    }
    arguments.repeats = 1
    rows = run(list(shrunk.values()), torch.device("cpu"), arguments, arguments.out)
    failed = [
        verdict
        for row in rows
        for verdict in aims.judge(row)
        if not verdict.met and verdict.aim.startswith(("our kernel", "error of"))
    ]
    for verdict in failed:
        print(f"failed: {verdict.case}: {verdict.aim} ({verdict.value:.3g})", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
