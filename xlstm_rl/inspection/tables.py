"""The numbers of an inspection as CSV files."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xlstm_rl.inspection.erasing import Erasing, ErasingCurve
from xlstm_rl.inspection.saliency import Saliency
from xlstm_rl.inspection.trace import Columns

STEPS, SALIENCY, ERASING = "steps.csv", "saliency.csv", "erasing.csv"
"""Names of the files."""


def write_steps(folder: Path, episodes: Sequence[tuple[str, int, Columns]]) -> None:
    """Write a line for each step: run, episode, step and the columns of `trace`.

    What a run does not have is empty.

    Args:
        folder: where `steps.csv` goes.
        episodes: name of the run, number of the episode, its numbers.
    """
    names = dict.fromkeys(name for _, _, columns in episodes for name in columns)
    rows = (
        [run, number, step, *(_text(columns.get(name), step) for name in names)]
        for run, number, columns in episodes
        for step in range(len(columns["reward"]))
    )
    _write(folder / STEPS, ["run", "episode", "step", *names], rows)


def write_saliency(folder: Path, episodes: Sequence[tuple[str, int, Saliency]]) -> None:
    """Write a line for each action, each step up to it and each input: what that one weighs."""
    rows = (
        [run, number, step, past, name.removeprefix("~"), f"{weights[row, past]:.6g}"]
        for run, number, one in episodes
        for row, step in enumerate(one.steps.tolist())
        for past in range(step + 1)
        for name, weights in one.by_input.items()
    )
    _write(folder / SALIENCY, ["run", "episode", "step", "past_step", "input", "weight"], rows)


def write_erasing(folder: Path, runs: Sequence[tuple[str, Erasing]]) -> None:
    """Write a line for each point of each curve; `erased` is once, every or never."""
    head = ["run", "erased", "part", "step", "mean_return", "low", "high", "episodes"]
    rows: list[list[Any]] = []
    for run, found in runs:
        count = len(found.intact.returns)
        low, high = found.intact.interval() or (found.intact.mean,) * 2
        ends = [f"{one:.6g}" for one in (found.intact.mean, low, high)]
        rows.append([run, "never", "", "", *ends, count])
        for curve in found.once:
            rows += [[run, "once", *point] for point in _points(curve)]
        if found.every is not None:
            rows += [[run, "every", *point] for point in _points(found.every)]
    _write(folder / ERASING, head, rows)


def _points(curve: ErasingCurve) -> Iterable[list[Any]]:
    numbers = zip(curve.steps.tolist(), curve.mean, curve.interval, strict=True)
    for step, mean, (low, high) in numbers:
        count = curve.returns.shape[1]
        yield [curve.part, step, f"{mean:.6g}", f"{low:.6g}", f"{high:.6g}", count]


def _text(values: Any, step: int) -> str:
    return "" if values is None else f"{values[step] + 0.0:.9g}"  # minus zero is zero


def _write(path: Path, head: list[str], rows: Iterable[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
