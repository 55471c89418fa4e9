"""Learning curves of runs, drawn."""

import html
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from xlstm_rl.config import ConfigError
from xlstm_rl.files import replacing
from xlstm_rl.options.arguments import check_whole, user_path
from xlstm_rl.runs.curves import (
    LONGEST_LABEL,
    Curve,
    band,
    group_by_label,
    read_curves,
    smoothed,
)
from xlstm_rl.terminal import tell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf", ".html")

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by those who see fewer colours, too (Okabe and Ito 2008); then with other lines."""
LINES = ("-", (0, (5, 1.5)), (0, (1, 1.2)))
_INSIDE = 5
"""Up to so many entries the legend stands in the axes; more stand beside them."""


def plot_runs(
    runs: Sequence[str | Path],
    out: str | Path,
    metric: str = "episode/return",
    smooth: int = 1,
) -> Path:
    """Draw learning curves: a line for each experiment, and a band where it has several runs.

    The line is the mean of an experiment's runs, the band its 95 % bootstrap interval. The runs
    themselves are drawn thin while there are few.

    Args:
        runs: run folders, or folders of them; a run inside of a folder that has no value of the
            metric yet is left out, with a line.
        out: the figure: a name that ends in .png, .svg, .pdf or .html.
        metric: a column of metrics.csv.
        smooth: each value becomes the mean of so many updates around it.

    Raises:
        ConfigError: a run has no metrics, an option is wrong, or the figure cannot be written.
    """
    path = user_path(out)
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--out {out}: expected a name that ends in {', '.join(FORMATS)}")
    smooth = check_whole("smooth", smooth, 1, ConfigError)
    curves, without = read_curves(runs, metric)
    if without:
        names = ", ".join(map(str, without))
        tell(f"xlstm-rl plot: left out, without {metric} yet: {names}")
    curves = [replace(curve, values=smoothed(curve.values, smooth)) for curve in curves]
    figure = _draw(curves, metric)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            if path.suffix.lower() == ".html":
                draft.write_text(_page(figure, curves, metric), encoding="utf-8")
            else:
                figure.savefig(draft, dpi=150)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from None
    return path


def _draw(curves: Sequence[Curve], metric: str) -> "Figure":
    # A Figure of its own needs no display and leaves pyplot's state alone.
    from matplotlib.figure import Figure

    groups = _by_last_value(group_by_label(curves))
    is_crowded = len(groups) > _INSIDE
    # The axes keep their size; the legend beside them, and its length, make the figure larger.
    height = max(4.3, 0.8 + 0.22 * len(groups)) if is_crowded else 4.3
    figure = Figure(figsize=(7.0 + 3.4 * is_crowded, height), layout="constrained")
    axes = figure.add_subplot()
    for number, (label, group) in enumerate(groups):
        draw_group(axes, group, label, number, with_runs=len(curves) <= 12)
    dress(axes, _title(curves), metric)
    if is_crowded:
        figure.legend(loc="outside right center", frameon=False, fontsize="small")
    else:
        axes.legend(frameon=False, loc="best")
    return figure


def _by_last_value(groups: dict[str, list[Curve]]) -> list[tuple[str, list[Curve]]]:
    """The experiments from the highest curve's end to the lowest, as the legend names them."""

    def last(group: Sequence[Curve]) -> float:
        return sum(float(curve.values[-1]) for curve in group) / len(group)

    return sorted(groups.items(), key=lambda item: (-last(item[1]), item[0]))


def dress(axes: "Axes", title: str, metric: str) -> None:
    """Give axes that curves are drawn in their title, labels and grid."""
    axes.set_title(title)
    axes.set_xlabel("environment steps")
    axes.set_ylabel(metric.replace("/", " "))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.xaxis.set_major_formatter(lambda value, _: _steps(value))


def draw_group(
    axes: "Axes", curves: Sequence[Curve], label: str, number: int, with_runs: bool
) -> None:
    """Draw the runs of one experiment: their mean in the band of its 95 % bootstrap interval.

    Args:
        axes: where.
        curves: one for each run.
        label: the experiment's name in the legend.
        number: of the experiment, from 0, which decides its colour and its line.
        with_runs: draw each run as well, thin.
    """
    color = COLORS[number % len(COLORS)]
    line = LINES[number // len(COLORS) % len(LINES)]
    name = label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"
    if len(curves) == 1:
        curve = curves[0]
        axes.plot(curve.steps, curve.values, color=color, linestyle=line, linewidth=1.6, label=name)
        return
    if with_runs:
        for curve in curves:
            axes.plot(curve.steps, curve.values, color=color, linewidth=0.6, alpha=0.3)
    mean = band(curves)
    axes.fill_between(mean.steps, mean.low, mean.high, color=color, alpha=0.18, linewidth=0)
    axes.plot(
        mean.steps,
        mean.mean,
        color=color,
        linestyle=line,
        linewidth=2.0,
        label=f"{name} ({len(curves)} runs)",
    )


def _title(curves: Sequence[Curve]) -> str:
    tasks = {str(curve.experiment.get("env.id", "")) for curve in curves}
    return tasks.pop() if len(tasks) == 1 else ""


def _steps(value: float) -> str:
    """Steps on the axis: 250k, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _page(figure: "Figure", curves: Sequence[Curve], metric: str) -> str:
    """A page that needs no other file: the figure as SVG, and a table of the last values."""
    rows = []
    for label, group in _by_last_value(group_by_label(curves)):
        mean = band(group)
        has_points = len(mean.steps) > 0
        ends = f"{mean.low[-1]:.2f} to {mean.high[-1]:.2f}" if has_points else "-"
        cells = [
            label,
            str(len(group)),
            f"{mean.steps[-1]:,.0f}" if has_points else "-",
            f"{mean.mean[-1]:.2f}" if has_points else "-",
            ends if len(group) > 1 else "-",
        ]
        rows.append(cells)
    head = ("experiment", "runs", "steps", f"last {metric}", "95 % interval")
    return page(_title(curves) or metric, [svg_of(figure), table_of(head, rows)])


def page(title: str, parts: Sequence[str]) -> str:
    """Return an HTML page that needs no other file, from parts that are HTML."""
    return _PAGE.format(title=html.escape(title), body="\n".join(parts))


def svg_of(figure: "Figure") -> str:
    """Return a figure as an SVG element for a page, its text as text."""
    from matplotlib import rc_context

    drawn = StringIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(drawn, format="svg")
    svg = drawn.getvalue()
    return svg[svg.index("<svg") :]


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table of texts."""
    lines = [[f"<th>{html.escape(cell)}</th>" for cell in head]]
    lines += [[f"<td>{html.escape(cell)}</td>" for cell in row] for row in rows]
    return "\n".join(["<table>", *(f"<tr>{''.join(line)}</tr>" for line in lines), "</table>"])


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }}
svg {{ width: 100%; height: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .3em .8em; text-align: left; border-bottom: 1px solid #ddd; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
