"""The results of the cases: a CSV for each, and the table and the picture of all of them."""

import contextlib
import csv
import math
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from learning.cases import CASES, Case
from learning.tables import ALL
from xlstm_rl.bootstrap import bootstrap_interval
from xlstm_rl.comparing.report import Report
from xlstm_rl.comparing.summary import Outcome
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.evaluation import evaluate
from xlstm_rl.runs.checkpoint import load_policy

FOLDER = Path(__file__).parents[1] / "results" / "learning"
ROOT = Path(__file__).parents[2]
_COLUMNS = 2


def write(name: str, case: Case, report: Report, command: str, folder: Path = FOLDER) -> Path:
    """Write a row for each run of a case, those that failed among them."""
    rows: list[dict[str, Any]] = []
    for one in report.outcomes:
        rows.append(
            {
                "case": name,
                "memory": one.job.memory,
                "seed": one.job.seed,
                "steps": 0 if one.result is None else one.result.steps,
                case.measure: _measure(case, one),
                "error": "" if one.result is None else one.result.error,
                "seconds": round(one.seconds, 1),
                "weights": one.job.weights,
            }
        )
    return save(name, rows, command, folder)


def save(name: str, rows: list[dict[str, Any]], command: str, folder: Path = FOLDER) -> Path:
    """Write the rows of runs, and when, from which commit and on what they were made.

    Rows of other memories and other seeds that stand in the file stay: a case may be run in parts.
    """
    around = {"date": time.strftime("%F"), "commit": _commit(), "machine": _machine()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    found = {_of(row): row for row in _rows(path)}
    found |= {_of(row): {**row, **around, "command": command} for row in rows}
    memories = list(dict.fromkeys(memory for memory, _ in found))
    ordered = sorted(found, key=lambda one: (memories.index(one[0]), one[1]))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *around, "command"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(found[one] for one in ordered)
    return path


def _of(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["memory"], int(row["seed"])


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _measure(case: Case, one: Outcome) -> float:
    """The number of one run, in the environment of the test where the case has one."""
    if not one.is_done or one.result is None:
        return math.nan
    if not case.test:
        return one.mean if case.measure == "return" else _successes(one.result)
    policy = load_policy(one.job.folder)
    env = dict(one.job.config["env"])
    env["kwargs"] = {**env["kwargs"], **dict(case.test)}
    played = evaluate(policy, EnvConfig(**env), **one.job.evaluation)
    return played.mean if case.measure == "return" else _successes(played)


def _successes(played: Any) -> float:
    """The share of episodes that succeeded: as the environment says, else those that paid."""
    if played.success_rate is not None:
        return float(played.success_rate)
    return float(np.mean([one > 0.0 for one in played.returns]))


def _commit() -> str:
    """The commit, `-dirty` where anything but results has changed since."""
    git = ["git", "-C", str(ROOT)]
    words = [*git, "rev-parse", "--short=10", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True).stdout.strip() or "unknown"
    words = [*git, "diff", "--quiet", "HEAD", "--", ".", ":(exclude)benchmarks/results"]
    return (
        commit if subprocess.run(words, capture_output=True).returncode != 1 else f"{commit}-dirty"
    )


def _machine() -> str:
    names = [platform.machine()]
    with contextlib.suppress(OSError):  # only Linux has this file
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.machine()])[0]


def read(folder: Path = FOLDER) -> dict[str, list[dict[str, str]]]:
    """Return the rows of each case that was run, in the order of the cases.

    Those of sb3-contrib on the same case (`learn_sb3.py`) come behind ours.
    """
    found: dict[str, list[dict[str, str]]] = {}
    for name in ALL:
        for path in (folder / f"{name}.csv", folder / f"{name}.sb3.csv"):
            rows = _rows(path)
            if rows:
                found.setdefault(name, []).extend(rows)
    return found


def page(results: dict[str, list[dict[str, str]]]) -> str:
    """Return the table of all cases as Markdown, those that were not run among them."""
    lines = [
        "| case | steps | memory | seeds | mean, 95 % interval | each seed | aim | published |"
        " commit |",
        f"|{'---|' * 9}",
    ]
    for name, case in CASES.items():
        aim = f"no worse than {case.rivals}" if case.reach is None else f"{case.reach:g}"
        rows = results.get(name, [])
        for memory in dict.fromkeys(row["memory"] for row in rows):
            own = [row for row in rows if row["memory"] == memory]
            cells = _cells(case, own)
            lines.append(
                f"| {name} | {case.total_steps:,} | {memory} | {cells} | {aim} | {case.published} |"
                f" {', '.join(dict.fromkeys(row.get('commit', '-')[:7] for row in own))} |"
            )
        if not rows:
            lines.append(
                f"| {name} | {case.total_steps:,} | - | 0/{case.seeds} | not run | - | {aim} |"
                f" {case.published} | - |"
            )
    return "\n".join(lines) + "\n"


def compared(results: dict[str, list[dict[str, str]]], cases: Mapping[str, Case]) -> str:
    """Return the table of cases in which memories stand side by side."""
    lines = [
        "| case | steps | memory | weights | seeds | mean, 95 % interval | each seed | seconds |",
        f"|{'---|' * 8}",
    ]
    for name, case in cases.items():
        rows, steps = results.get(name, []), f"{case.total_steps:,}"
        for memory in dict.fromkeys(row["memory"] for row in rows):
            own = [row for row in rows if row["memory"] == memory]
            seconds = np.mean([float(row["seconds"]) for row in own])
            lines.append(
                f"| {name} | {steps} | `{memory}` | {int(own[0]['weights']):,} |"
                f" {_cells(case, own)} | {seconds:.0f} |"
            )
        if not rows:
            lines.append(f"| {name} | {steps} | - | - | 0/{case.seeds} | not run | - | - |")
    return "\n".join(lines) + "\n"


def _cells(case: Case, rows: Sequence[dict[str, str]]) -> str:
    values = np.array([float(row[case.measure]) for row in rows])
    done = values[~np.isnan(values)]
    star = "" if len(done) == len(values) else "*"
    ends = bootstrap_interval(done)
    interval = "" if ends is None else f" [{ends[0]:.2f}, {ends[1]:.2f}]"
    mean = f"{done.mean():.2f}{star}{interval}" if len(done) else "failed"
    each = ", ".join("failed" if math.isnan(one) else f"{one:.2f}" for one in values)
    return f"{len(done)}/{len(values)}{star} | {mean} | {each}"


def draw(results: dict[str, list[dict[str, str]]], path: Path) -> None:
    """Draw each seed of each case as a point, and the aim as a line, on an axis of its own."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    memories = {
        name: list(dict.fromkeys(row["memory"] for row in results[name])) for name in results
    }
    # cases with as many memories stand side by side, so that no panel is empty
    names = sorted(results, key=lambda name: len(memories[name]))
    lines = max(1, math.ceil(len(names) / _COLUMNS))
    heights = [
        max([1, *(len(memories[name]) for name in names[_COLUMNS * i : _COLUMNS * (i + 1)])])
        for i in range(lines)
    ]
    figure = Figure(figsize=(11.0, sum(0.62 + 0.2 * one for one in heights)), layout="constrained")
    ratios = {"height_ratios": [1.0 + one for one in heights]}
    panels = figure.subplots(lines, _COLUMNS, squeeze=False, gridspec_kw=ratios).ravel()
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(panels, names, strict=False):
        case = ALL[name]
        for place, memory in enumerate(memories[name]):
            own = [float(row[case.measure]) for row in results[name] if row["memory"] == memory]
            # seeds that are equal lie above each other
            height = place + np.linspace(-0.2, 0.2, len(own)) if len(own) > 1 else [place]
            axes.plot(own, height, "o", color="C0", markersize=5, alpha=0.7)
        if case.reach is not None:
            axes.axvline(case.reach, color="black", linestyle=":", linewidth=1.2)
        labels = [memory.removeprefix("xlstm:") for memory in memories[name]]
        axes.set_yticks(range(len(labels)), labels, fontsize="small")
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(axis="x", labelsize="small")
        title = f"{name}, {case.total_steps:,} steps: {case.measure}"
        axes.set_title(title, fontsize="small", loc="left")
    figure.savefig(path, dpi=120)
