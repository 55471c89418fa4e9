"""The table of a comparison: for a terminal, as Markdown, CSV, a picture and a page."""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from xlstm_rl.comparing.statistics import Interval
from xlstm_rl.comparing.summary import Outcome, Overall, Row, make_overall, make_rows
from xlstm_rl.files import replacing
from xlstm_rl.runs.curves import Curve
from xlstm_rl.runs.plotting import draw_group, dress, page, svg_of, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METRIC = "episode/return"

HEAD = (
    *("case", "memory", "seeds", "return", "IQM", "better than the first", "success"),
    *("steps to threshold", "minutes", "steps/s", "weights", "width"),
)


@dataclass(frozen=True)
class Report:
    """What a comparison has found up to now.

    Args:
        outcomes: every run that was asked for, in the order of the table.
        episodes: how many each policy was evaluated in.
    """

    outcomes: Sequence[Outcome]
    episodes: int

    @cached_property
    def rows(self) -> list[Row]:
        """A row for each memory on each case."""
        return make_rows(self.outcomes)

    @property
    def missing(self) -> list[str]:
        """A line for each run that is in no number, with the reason."""
        lines = []
        for one in self.outcomes:
            if not one.is_done:
                why = "not run" if one.result is None else f"failed: {one.result.error}"
                lines.append(f"{one.job.name}: {why}")
        return lines

    @property
    def notes(self) -> list[str]:
        """What a reader has to know of the numbers."""
        first = self.rows[0].memory
        lines = [
            f"return: mean over the seeds of {self.episodes} evaluation episodes with the policy "
            "saved last, 95 % bootstrap interval over the seeds; IQM: interquartile mean",
            "minutes, steps/s: of training, mean over the seeds",
        ]
        if any(row.success is not None for row in self.rows):
            lines.append("success: share of the evaluation episodes that succeeded")
        if any(row.better_interval or not math.isnan(row.better) for row in self.rows):
            lines.append(f"better than the first: probability that a run beats one of {first}")
        for row in self.rows:
            if row.threshold is not None:
                lines.append(
                    f"steps to threshold, {row.case}: the median over the seeds until the mean "
                    f"return of training is {row.threshold:g}; in brackets how many came there"
                )
        lines += [f"over {one.cases} cases, {_over(one)}" for one in make_overall(self.rows)]
        return list(dict.fromkeys(lines))

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the head and the rows as texts, without columns in which nothing stands.

        A star marks a mean in which runs are missing.
        """
        rows = [_cells(row) for row in self.rows]
        shown = [at for at in range(len(HEAD)) if any(row[at] != "-" for row in rows)]
        return [HEAD[at] for at in shown], [[row[at] for at in shown] for row in rows]

    def markdown(self) -> str:
        """Return the table, its notes and what is missing as Markdown."""
        head, rows = self.table()
        lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += ["", *(f"- {note}" for note in self.notes)]
        if self.missing:
            lines += ["", "In no number (*):", "", *(f"- {line}" for line in self.missing)]
        return "\n".join(lines) + "\n"

    def write(self, out: Path) -> list[Path]:
        """Write `table.md`, `table.csv`, `runs.csv`, `curves.png` and `index.html`.

        Returns:
            What was written.

        Raises:
            OSError: one of them cannot be written.
        """
        figure = self.figure()
        writers: dict[str, Callable[[Path], object]] = {
            "table.md": lambda path: path.write_text(self.markdown(), encoding="utf-8"),
            "table.csv": lambda path: _write_csv(path, [_record(row) for row in self.rows]),
            "runs.csv": lambda path: _write_csv(path, [_run(one) for one in self.outcomes]),
        }
        if figure is not None:
            writers["curves.png"] = lambda path: figure.savefig(path, dpi=150)
        writers["index.html"] = lambda path: path.write_text(self.html(figure), encoding="utf-8")
        for name, write in writers.items():
            with replacing(out / name) as draft:
                write(draft)
        return [out / name for name in writers]

    def html(self, figure: "Figure | None") -> str:
        """Return a page that needs no other file."""
        parts = [] if figure is None else [svg_of(figure)]
        parts += [table_of(*self.table()), table_of(("notes",), [[n] for n in self.notes])]
        if self.missing:
            parts.append(table_of(("in no number (*)",), [[line] for line in self.missing]))
        return page(", ".join(dict.fromkeys(row.case for row in self.rows)), parts)

    def figure(self) -> "Figure | None":
        """Return the learning curves, a panel for each case; None: there is none to draw."""
        from matplotlib.figure import Figure

        cases = dict.fromkeys(row.case for row in self.rows)
        drawn = [case for case in cases if any(self._curves(case, m) for m in self._memories())]
        if not drawn:
            return None
        columns = min(3, len(drawn))
        lines = math.ceil(len(drawn) / columns)
        figure = Figure(figsize=(5.5 * columns + 1.5, 4.0 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, case in zip(panels, drawn, strict=False):
            for number, memory in enumerate(self._memories()):
                curves = self._curves(case, memory)
                if curves:
                    draw_group(axes, curves, memory, number, with_runs=len(self.rows) <= 4)
            dress(axes, case, _METRIC)
            axes.legend(frameon=False, fontsize="small")
        for axes in panels[len(drawn) :]:
            axes.set_visible(False)
        return figure

    def _memories(self) -> list[str]:
        return list(dict.fromkeys(row.memory for row in self.rows))

    def _curves(self, case: str, memory: str) -> list[Curve]:
        """Return those of the runs that are in the table's numbers."""
        return [
            one.curve
            for one in self.outcomes
            if (one.job.case, one.job.memory) == (case, memory)
            and one.is_done
            and one.curve is not None
        ]


def _cells(row: Row) -> list[str]:
    star = "" if row.done == row.runs else "*"
    reached = "-"
    if row.threshold is not None and row.done:
        steps = row.steps_to_threshold
        reached = f"{'never' if steps is None else f'{steps:,.0f}'} ({row.reached}/{row.done})"
    return [
        row.case,
        row.memory,
        f"{row.done}/{row.runs}{star}",
        f"{_number(row.mean)}{star}{_ends(row.interval)}",
        f"{_number(row.iqm)}{_ends(row.iqm_interval)}",
        f"{_number(row.better)}{_ends(row.better_interval)}",
        "-" if row.success is None else f"{row.success:.2f}",
        reached,
        "-" if math.isnan(row.seconds) else f"{row.seconds / 60:.1f}",
        "-" if math.isnan(row.speed) else f"{row.speed:,.0f}",
        f"{row.weights:,}",
        str(row.width),
    ]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _ends(interval: Interval | None) -> str:
    return "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"


def _over(one: Overall) -> str:
    return f"{one.memory}: better than the first {_number(one.better)}{_ends(one.interval)}"


def _record(row: Row) -> dict[str, object]:
    low, high = row.interval or (math.nan, math.nan)
    iqm_low, iqm_high = row.iqm_interval or (math.nan, math.nan)
    better_low, better_high = row.better_interval or (math.nan, math.nan)
    return {
        "case": row.case,
        "memory": row.memory,
        "seeds": row.runs,
        "seeds_done": row.done,
        "return": row.mean,
        "return_low": low,
        "return_high": high,
        "iqm": row.iqm,
        "iqm_low": iqm_low,
        "iqm_high": iqm_high,
        "better": row.better,
        "better_low": better_low,
        "better_high": better_high,
        "success": "" if row.success is None else row.success,
        "threshold": "" if row.threshold is None else row.threshold,
        "reached": row.reached,
        "steps_to_threshold": "" if row.steps_to_threshold is None else row.steps_to_threshold,
        "seconds": row.seconds,
        "steps_per_second": row.speed,
        "weights": row.weights,
        "width": row.width,
    }


def _run(one: Outcome) -> dict[str, object]:
    result = one.result
    return {
        "case": one.job.case,
        "memory": one.job.memory,
        "seed": one.job.seed,
        "status": "missing" if result is None else result.status,
        "return": one.mean,
        "success": "" if result is None or result.success_rate is None else result.success_rate,
        "steps": 0 if result is None else result.steps,
        "steps_to_threshold": "" if one.reached is None else one.reached,
        "seconds": one.seconds,
        "weights": one.job.weights,
        "width": one.job.width,
        "error": "" if result is None else result.error,
    }


def _write_csv(path: Path, records: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
