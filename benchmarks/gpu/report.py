"""The table on the screen and the file of a run."""

import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gpu.aims import Verdict
from gpu.cases import Case
from gpu.floors import Rates
from gpu.measure import Row

RESULTS = Path(__file__).resolve().parent.parent / "results"


def default_path(device_name: str) -> Path:
    """`benchmarks/results/kernels-<device>-<date>.json`."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", device_name).strip("_")
    return RESULTS / f"kernels-{name}-{datetime.date.today().isoformat()}.json"


def save(
    path: Path,
    about: dict[str, object],
    rates: Rates,
    rows: Sequence[Row],
    verdicts: Sequence[Verdict],
) -> None:
    """Write all that was measured; called after each case, so that a run cut short leaves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "about": about,
        "rates": asdict(rates),
        "rows": list(rows),
        "aims": [verdict._asdict() for verdict in verdicts],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def print_rates(about: dict[str, object], rates: Rates) -> None:
    """Print the device and what it was measured to do."""
    versions = ", ".join(f"{p} {about[p]}" for p in ("torch", "triton") if about.get(p))
    print(f"{about['device']}, {versions}")
    print(
        f"measured: copy {rates.copy / 1e9:.0f} GB/s, products bfloat16 "
        f"{rates.bfloat16 / 1e12:.1f}, TF32 {rates.tf32 / 1e12:.1f}, float32 "
        f"{rates.float32 / 1e12:.1f} Tflop/s, smallest launch {1e6 * rates.launch:.1f} us\n"
    )


def print_row(row: Row) -> None:
    """Print a case: each contender's time, its ratio to the floor, and the ratios between them."""
    if "contenders" in row:
        print(
            f"{row['case']}: {row['bytes'] / 1e6:.3g} MB, {row['operations'] / 1e9:.3g} Gflop, "
            f"floor {row['floor_us']:.1f} us (bytes {row['bytes_us']:.1f}, operations "
            f"{row['operations_us']:.1f})"
        )
        for name, figures in row["contenders"].items():
            print(
                f"  {name:34}{figures['us']:12.1f} us{figures['ratio_to_floor']:9.2f} x floor"
                f"{figures['wall_us']:12.1f} us wall{figures['runs']:5} runs"
            )
        for pair, ratio in row["ratios"].items():
            print(f"  {pair:60}{ratio:8.3f}")
        for name, error in row["errors"].items():
            print(f"  difference of {name} from torch{error:26.2g}")
    else:
        print(row["case"])
    for name, why in row["absent"].items():
        print(f"  {name}: not run ({why})")
    print(flush=True)


def print_case(case: Case) -> None:
    """Print what has to be moved and done, without running it."""
    if case.work is None:
        print(f"{case.name:52} (known once the policy is made)")
        return
    print(f"{case.name:52}{case.work.bytes / 1e6:12.3f} MB{case.work.operations / 1e9:12.4f} Gflop")


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print the aims that were missed, and how many were met."""
    missed = [verdict for verdict in verdicts if not verdict.met]
    for verdict in missed:
        print(f"missed: {verdict.case}: {verdict.aim} {verdict.value:.3g}, aim {verdict.bound:g}")
    print(f"{len(verdicts) - len(missed)} of {len(verdicts)} aims met")
