"""Pictures of an inspection: episodes as rows on one time axis, and erasing curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xlstm_rl.inspection.erasing import Erasing, ErasingCurve
from xlstm_rl.inspection.results import Inspected, InspectedEpisode
from xlstm_rl.inspection.rows import Row
from xlstm_rl.inspection.saliency import Saliency
from xlstm_rl.runs.plotting import COLORS, LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 120
_FRAMES = 12
_STRIP, _ROW, _MAP = 0.7, 0.62, 3.0  # heights in inches
_GAP, _ABOVE, _BELOW, _LEFT = 0.32, 0.65, 0.5, 0.65  # between them and around
_LEGEND, _IN_A_COLUMN = 0.8, 5  # width of a legend's column, and its entries
_MUTED = "#5f6773"


def draw_episode(path: Path, runs: Sequence[Inspected], number: int) -> None:
    """Draw an episode of each run side by side: frames, rows and the saliency of the past.

    Args:
        path: of the picture.
        runs: one or several.
        number: which of their episodes.
    """
    from matplotlib.figure import Figure

    episodes = [run.episodes[number] for run in runs]
    by_run = [{row.key: row for row in one.rows} for one in episodes]
    keys = list(dict.fromkeys(key for rows in by_run for key in rows))
    has_frames = any(one.recording.frames for one in episodes)
    has_saliency = any(one.saliency is not None for one in episodes)
    heights = [_STRIP] * has_frames + [_ROW] * len(keys) + [_MAP] * has_saliency
    most = max(len(row.lines) for rows in by_run for row in rows.values())
    right = 0.2 + _LEGEND * -(-most // _IN_A_COLUMN)
    width = (9.0 if len(runs) == 1 else 6.0) + right
    size = (width * len(runs), sum(heights) + _GAP * (len(heights) - 1) + _ABOVE + _BELOW)
    figure = Figure(figsize=size)
    axes = figure.subplots(len(heights), len(runs), squeeze=False, height_ratios=heights)
    # in inches, and not by a constrained layout, which takes seconds for so many axes
    figure.subplots_adjust(
        left=_LEFT / size[0],
        right=1.0 - right / size[0],
        bottom=_BELOW / size[1],
        top=1.0 - _ABOVE / size[1],
        wspace=(_LEFT + right) / (width - _LEFT - right),
        hspace=_GAP * len(heights) / sum(heights),
    )
    for column, (run, episode) in enumerate(zip(runs, episodes, strict=True)):
        first, *_ = axes[:, column]
        heading = episode.title if len(runs) == 1 else f"{run.name}\n{episode.title}"
        pad = 16 if has_frames else 6  # above the numbers of the frames
        first.set_title(heading, loc="left", fontsize=11, fontweight="bold", pad=pad)
        rest = list(axes[:, column])
        if has_frames:
            _draw_frames(rest.pop(0), episode)
        if has_saliency:
            _draw_saliency(rest.pop(), episode.saliency)
        for key, one in zip(keys, rest, strict=True):
            _draw_row(one, by_run[column].get(key), episode.recording.length)
        lowest = axes[-1, column]
        lowest.set_xlabel("step" if not has_saliency else "past step")
    figure.savefig(path, dpi=_DPI)


def draw_erasing(path: Path, runs: Sequence[tuple[str, Erasing]]) -> None:
    """Draw what returns lose: erased once before a step, and erased every so many steps.

    Args:
        path: of the picture.
        runs: names and what was found.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 3.6 * len(runs) + 0.3), layout="constrained")
    axes = figure.subplots(len(runs), 2, squeeze=False, width_ratios=(3, 2), sharey=True)
    for (left, right), (name, found) in zip(axes, runs, strict=True):
        for number, curve in enumerate(found.once):
            _draw_curve(left, curve, number)
        title = "erased once" if len(runs) == 1 else f"{name}: erased once"
        left.set_title(title, loc="left", fontsize=11, fontweight="bold")
        left.set_xlabel("step before which the state is erased")
        right.set_title("erased again and again", loc="left", fontsize=11, fontweight="bold")
        right.set_xlabel("steps between two erasures")
        if found.every is None:
            right.text(0.5, 0.5, "no state to erase", ha="center", transform=right.transAxes)
            right.set_xticks([])
            right.set_xlabel("")
        else:
            _draw_curve(right, found.every, 0)
            right.set_xscale("log", base=2)
            right.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for one in (left, right):
            _plain(one)
            one.axhline(found.intact.mean, color=_MUTED, linewidth=1.0, linestyle="--")
            one.axhline(found.without, color=_MUTED, linewidth=1.0, linestyle=":")
            one.set_ylabel("mean return")
        _name_levels(left, found)
        left.legend(frameon=False, fontsize="small", ncols=2 if len(found.once) > 4 else 1)
    figure.savefig(path, dpi=_DPI)


def _ink(number: int) -> tuple[str, Any]:
    """Return colour and style of a line."""
    return COLORS[number % len(COLORS)], LINES[number // len(COLORS) % len(LINES)]


def _draw_curve(axes: "Axes", curve: ErasingCurve, number: int) -> None:
    """Draw a curve; the first is of the whole memory, with its interval."""
    (color, style), is_whole = _ink(number), number == 0
    axes.plot(
        curve.steps,
        curve.mean,
        color=color,
        linestyle=style,
        linewidth=2.4 if is_whole else 1.3,
        marker="o" if len(curve.steps) < 40 else None,
        markersize=3.0,
        label=curve.part,
        zorder=2 if is_whole else 3,
    )
    if is_whole:
        low, high = curve.interval.T
        axes.fill_between(curve.steps, low, high, color=color, alpha=0.15, linewidth=0)


def _name_levels(axes: "Axes", found: Erasing) -> None:
    end = axes.get_xlim()[1]
    for level, name in ((found.intact.mean, "intact"), (found.without, "no memory")):
        axes.annotate(
            name,
            (end, level),
            xytext=(-3, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=_MUTED,
        )
        if found.intact.mean == found.without:
            return


def _draw_frames(axes: "Axes", episode: InspectedEpisode) -> None:
    """Draw pictures at their steps, as many as fit."""
    frames, length = episode.recording.frames, episode.recording.length
    axes.axis("off")
    axes.set_xlim(-0.5, length - 0.5)
    axes.set_ylim(0, 1)
    if not frames:
        axes.text(0, 0.5, "no frames", color=_MUTED, va="center")
        return
    for index in range(min(_FRAMES, length)):
        at = (index + 0.5) * length / min(_FRAMES, length) - 0.5
        picture = axes.inset_axes(
            (at - 0.45 * length / _FRAMES, 0.0, 0.9 * length / _FRAMES, 1.0),
            transform=axes.transData,
        )
        picture.imshow(frames[round(at)])
        picture.set_title(f"{round(at)}", fontsize=7, color=_MUTED, pad=2)
        picture.set_xticks([])
        picture.set_yticks([])


def _draw_row(axes: "Axes", row: Row | None, length: int) -> None:
    _plain(axes)
    axes.set_xlim(-0.5, length - 0.5)
    if row is None:
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "not in this policy", ha="center", transform=axes.transAxes, color=_MUTED
        )
        return
    steps = np.arange(length)
    for number, (label, values) in enumerate(row.lines.items(), row.offset):
        color, style = _ink(number)
        if row.bars:
            axes.bar(steps, values, color=color, width=0.9 if length < 100 else 1.0)
            axes.axhline(0.0, color=_MUTED, linewidth=0.6)
            continue
        axes.plot(steps, values, color=color, linestyle=style, linewidth=1.3, label=label)
        if label in row.bands:
            low, high = row.bands[label]
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        if label in row.dots:
            axes.plot(steps, row.dots[label], ".", color=color, markersize=2.5)
    if row.is_log:
        _make_logarithmic(axes)
    if row.limits is not None:
        margin = 0.04 * (row.limits[1] - row.limits[0])
        axes.set_ylim(row.limits[0] - margin, row.limits[1] + margin)
    axes.tick_params(labelbottom=False)
    axes.set_title(row.title, loc="left", fontsize=9, pad=3)
    if len(row.lines) > 1:
        axes.legend(
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            frameon=False,
            fontsize=7,
            handlelength=1.2,
            labelspacing=0.25,
            ncols=-(-len(row.lines) // _IN_A_COLUMN),
            columnspacing=1.0,
        )


def _make_logarithmic(axes: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 50 * low else (1.0,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_saliency(axes: "Axes", found: Saliency | None) -> None:
    """Draw which past step weighs how much in which action, each action by its largest weight."""
    if found is None:
        axes.set_axis_off()
        return
    relative = found.relative
    length = relative.shape[1]
    shown: Any = np.ma.masked_where(np.arange(length) > found.steps[:, None], relative)
    edges = np.append(np.arange(length) - 0.5, length - 0.5)
    rows = np.append(np.insert(found.steps[:-1], 0, -1), found.steps[-1]) + 0.5
    axes.pcolormesh(edges, rows, shown, cmap="magma_r", vmin=0.0, vmax=1.0, rasterized=True)
    axes.set_xlim(-0.5, length - 0.5)
    axes.set_ylim(length - 0.5, -0.5)
    axes.set_title(
        "saliency: how much a past step weighs in an action, relative to the largest before it",
        loc="left",
        fontsize=9,
        pad=3,
    )
    axes.set_ylabel("step of the action")
    axes.spines[["top", "right"]].set_visible(False)


def _plain(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    axes.tick_params(labelsize=8)
