"""Draw the pictures of the documentation: `python docs/figures/draw.py`.

Each is an SVG in `docs/images/`, the same bytes whenever it is drawn.
"""

import csv
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    QUIET,
    ROSE,
    SETTINGS,
    arrow,
    box,
    canvas,
    label,
    save,
)

RESULTS = Path(__file__).parents[2] / "benchmarks/results/memory_matters-cpu-2026-11-26.csv"


def rollout() -> None:
    """Two environments over ten steps: a termination, a truncation, what is carried on."""
    figure, axes = canvas(9.2, 3.1)
    width, left = 0.62, 1.9
    cut = "truncated: V(final observation) completes the return, from the old memory"
    ends = {0: (3, "terminated: nothing follows", ORANGE), 1: (6, cut, BLUE)}
    for row, y in enumerate((2.35, 1.15)):
        label(axes, (0.15, y), f"environment {row}", INK, align="left")
        end, word, color = ends[row]
        for t in range(10):
            x = left + (t + 0.5) * width
            is_first = t == end + 1
            shade = GREEN if is_first else INK
            box(axes, (x, y), (0.5, 0.42), f"{t}", shade, filled=is_first)
            if t and not is_first:
                arrow(axes, (x - width + 0.25, y), (x - 0.25, y), QUIET)
        x = left + (end + 1) * width
        axes.plot([x, x], [y - 0.36, y + 0.36], color=color, lw=2.2)
        label(axes, (x - 0.1, y + 0.5), word, color, 9, "right")
        label(axes, (x + 0.35, y - 0.42), "reset: state is zero", GREEN, 8.5)
        arrow(axes, (left - 0.42, y), (left + 0.06, y), ROSE)
        arrow(axes, (left + 10 * width - 0.06, y), (left + 10 * width + 0.42, y), ROSE)
    label(axes, (left - 0.45, 2.62), "stored state", ROSE, 8.5)
    label(axes, (left + 10 * width + 0.1, 2.75), "carried on", ROSE, 8.5, "left")
    label(axes, (left + 5 * width, 0.3), "steps of a rollout  [B, T]", QUIET)
    save(figure, "rollout")


def cells() -> None:
    """The two cells beside each other: what each stores, and what it can see of itself."""
    figure, axes = canvas(9.2, 3.6)
    for left, name, color in ((0.3, "mLSTM", BLUE), (4.9, "sLSTM", ORANGE)):
        label(axes, (left + 0.1, 3.3), name, color, 13, "left")
        box(axes, (left + 2.0, 1.75), (1.5, 0.9), "", color)
        arrow(axes, (left + 0.2, 1.75), (left + 1.25, 1.75), color)
        arrow(axes, (left + 2.75, 1.75), (left + 3.8, 1.75), color)
        label(axes, (left + 0.7, 1.95), "state", QUIET, 8.5)
        label(axes, (left + 3.3, 1.95), "state", QUIET, 8.5)
        arrow(axes, (left + 2.0, 0.72), (left + 2.0, 1.3), INK)
        arrow(axes, (left + 2.0, 2.2), (left + 2.0, 2.78), INK)
        label(axes, (left + 2.0, 2.95), "output h", INK)
        label(axes, (left + 1.45, 0.95), "input", QUIET, 8.5)
    label(axes, (2.3, 1.9), "matrix C", BLUE)
    label(axes, (2.3, 1.6), "C = f C + i k v'", BLUE, 8.5)
    label(axes, (6.9, 1.9), "vector c", ORANGE)
    label(axes, (6.9, 1.6), "c = f c + i z", ORANGE, 8.5)
    label(axes, (2.3, 0.5), "q, k, v and the gates i, f: of the input alone", INK, 8.5)
    label(axes, (6.9, 0.5), "the gates i, f, o and z: of the input and of h before", INK, 8.5)
    arrow(axes, (7.02, 2.62), (7.42, 1.3), ORANGE, -0.9)
    label(axes, (2.3, 0.15), "stores pairs; a sequence runs in parallel", BLUE, 9)
    label(axes, (6.9, 0.15), "counts and tracks; a sequence runs step by step", ORANGE, 9)
    save(figure, "cells")


def chunks() -> None:
    """The chunkwise form: products inside chunks, one state between them."""
    figure, axes = canvas(9.2, 2.5)
    for number in range(4):
        x = 1.4 + 2.15 * number
        box(axes, (x, 1.45), (1.6, 0.8), "", BLUE)
        label(axes, (x, 1.62), f"chunk {number}", BLUE)
        label(axes, (x, 1.3), "(q k' * weights) v", BLUE, 8.5)
        if number < 3:
            arrow(axes, (x + 0.8, 1.45), (x + 1.35, 1.45), ROSE)
            label(axes, (x + 1.07, 1.68), "C, n", ROSE, 8.5)
        label(axes, (x, 0.8), "steps beside each other", QUIET, 8.5)
    axes.plot([5.05, 5.05], [1.0, 1.9], color=GREEN, lw=2.2)
    label(axes, (5.05, 2.1), "reset: nothing before it is seen", GREEN, 8.5)
    label(axes, (4.6, 0.3), "time and memory grow with T, not with its square", INK, 9)
    save(figure, "chunks")


def house() -> None:
    """Which room uses which."""
    figure, axes = canvas(9.2, 4.3)
    rows = [
        [("cli", INK), ("comparing", QUIET)],
        [("agents", BLUE)],
        [("callbacks", QUIET), ("inspection", QUIET), ("evaluation", BLUE), ("distributed", QUIET)],
        [("collection", BLUE), ("runs", BLUE), ("export", QUIET), ("torchrl", QUIET)],
        [("policy", BLUE)],
        [("memory", ORANGE), ("normalization", QUIET), ("returns", QUIET), ("config", QUIET)],
        [("kernels", ORANGE), ("envs", GREEN), ("configs", QUIET)],
        [("options", QUIET)],
    ]
    words = [
        "what is typed",
        "the algorithms",
        "beside training",
        "rollouts, folders, files",
        "encoders, heads, actions",
        "what remembers",
        "cells; environments",
        "types of options",
    ]
    for level, names in enumerate(rows):
        y = 3.95 - level * 0.5
        label(axes, (0.65, y), words[level], QUIET, 9, "left")
        for place, (name, color) in enumerate(names):
            x = 5.8 + (place - (len(names) - 1) / 2) * 1.7
            box(axes, (x, y), (1.5, 0.36), name, color)
    arrow(axes, (0.4, 4.1), (0.4, 0.35), QUIET)
    label(axes, (0.15, 0.15), "imports go down", QUIET, 9, "left")
    save(figure, "house")


def _flow(
    axes: Axes, y: float, left: float, parts: list[tuple[str, str, float]], gap: float = 0.22
) -> list[float]:
    """Draw boxes from left to right with arrows between them, and return their middles."""
    middles = []
    for number, (text, color, width) in enumerate(parts):
        x = left + width / 2
        box(axes, (x, y), (width, 0.5), text, color)
        if number:
            arrow(axes, (left - gap, y), (left, y), INK)
        middles.append(x)
        left += width + gap
    return middles


def blocks() -> None:
    """The two residual blocks, from their input to their output."""
    figure, axes = canvas(9.45, 4.6)
    label(axes, (0.3, 4.35), "mLSTM block", BLUE, 13, "left")
    parts = [("norm", INK, 0.7), ("up: twice\nas wide", INK, 1.0), ("convolution\nSiLU", INK, 1.15)]
    parts += [("q k v,\ngates", INK, 0.85), ("mLSTM\ncell", BLUE, 0.85), ("norm\n+ skip", INK, 0.8)]
    parts += [("x", INK, 0.4), ("down", INK, 0.7), ("+", INK, 0.4)]
    m = _flow(axes, 3.45, 0.55, parts)
    _around(axes, 3.45, m[1], m[6], "the other half: a gate, SiLU(z)", -0.6)
    _around(axes, 3.45, 0.3, m[8], "the input is added", 0.55)
    label(axes, (0.3, 2.05), "sLSTM block", ORANGE, 13, "left")
    parts = [("norm", INK, 0.65), ("convolution\nSiLU", INK, 1.1), ("gates\ni f z o", INK, 0.8)]
    parts += [("sLSTM\ncell", ORANGE, 0.85), ("norm", INK, 0.65), ("+", INK, 0.36)]
    parts += [("norm", INK, 0.65), ("feed-forward\nGELU", INK, 1.15), ("+", INK, 0.36)]
    s = _flow(axes, 1.15, 0.55, parts)
    _around(axes, 1.15, m[0], s[2], "z and o: without the convolution", -0.6, s[0] + 0.43)
    _around(axes, 1.15, 0.3, s[5], "the input is added", 0.55)
    _around(axes, 1.15, s[5] + 0.29, s[8], "", 0.55)
    save(figure, "blocks")


def _around(
    axes: Axes, y: float, start: float, end: float, text: str, by: float, begin: float | None = None
) -> None:
    """Draw a way that goes around what stands between two places."""
    start = start if begin is None else begin
    foot = y + (0.25 if by > 0 else -0.25)
    from_foot = y if start < 0.5 or begin is not None or (by > 0 and not text) else foot
    axes.plot([start, start, end], [from_foot, y + by, y + by], color=QUIET, lw=1.2)
    arrow(axes, (end, y + by), (end, foot), QUIET)
    if start < 0.5:
        arrow(axes, (start, y), (0.55, y), INK)
    label(axes, ((start + end) / 2, y + by + (0.13 if by > 0 else -0.13)), text, QUIET, 8.5)


def run_life() -> None:
    """The life of a run: from its options over its folder to what is done with the policy."""
    figure, axes = canvas(9.2, 4.1)
    for x, text in ((1.1, "defaults"), (1.1, "YAML file"), (1.1, "command line")):
        y = {"defaults": 3.6, "YAML file": 3.1, "command line": 2.6}[text]
        box(axes, (x, y), (1.4, 0.36), text, QUIET)
        arrow(axes, (1.8, y), (2.35, 3.1), QUIET)
    label(axes, (1.1, 2.2), "the lower one wins", QUIET, 8.5)
    box(axes, (3.0, 3.1), (1.3, 0.5), "config.yaml", INK)
    arrow(axes, (3.65, 3.1), (4.1, 3.1), INK)
    for x, text, color in ((4.75, "collect", GREEN), (6.35, "update", BLUE), (7.95, "log", INK)):
        box(axes, (x, 3.1), (1.25, 0.5), text, color)
    arrow(axes, (5.38, 3.1), (5.72, 3.1), INK)
    arrow(axes, (6.98, 3.1), (7.32, 3.1), INK)
    axes.plot([7.95, 7.95, 4.75], [3.35, 3.75, 3.75], color=INK, lw=1.2)
    arrow(axes, (4.75, 3.75), (4.75, 3.35), INK)
    label(axes, (6.35, 3.9), "until total_steps; memory and episodes are carried on", QUIET, 8.5)
    arrow(axes, (7.95, 2.85), (7.95, 2.2), INK)
    box(axes, (7.95, 1.95), (1.5, 0.5), "metrics.csv", INK)
    arrow(axes, (6.35, 2.85), (6.35, 2.2), INK)
    box(axes, (6.0, 1.95), (1.7, 0.5), "checkpoints/, best/", BLUE)
    arrow(axes, (5.15, 1.95), (4.55, 2.85), ROSE, -0.3)
    label(axes, (3.95, 2.25), "resume: to the bit", ROSE, 9)
    label(axes, (3.95, 2.0), "after Ctrl-C, a kill, a new total", ROSE, 8.5)
    for x, text in ((1.5, "eval"), (2.9, "inspect"), (4.3, "export"), (5.7, "load_policy")):
        arrow(axes, (6.0, 1.7), (x, 0.88), BLUE)
        box(axes, (x, 0.65), (1.25, 0.42), text, BLUE)
    arrow(axes, (7.95, 1.7), (7.95, 0.88), INK)
    box(axes, (7.95, 0.65), (1.25, 0.42), "plot", INK)
    save(figure, "run")


def memory() -> None:
    """What memory is worth: CartPole without velocities, with a memory and without."""
    figure, axes = canvas(6.4, 3.5)
    plot = figure.add_axes((0.1, 0.15, 0.87, 0.78), facecolor="none")
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    evaluated: dict[str, list[str]] = {"xlstm": [], "mlp": []}
    for kind, color in (("xlstm", BLUE), ("mlp", ORANGE)):
        for seed in sorted({row["seed"] for row in rows}):
            run = [row for row in rows if (row["memory"], row["seed"]) == (kind, seed)]
            steps = [int(row["step"]) / 1000 for row in run]
            plot.plot(steps, [float(row["return"]) for row in run], color=color, lw=1.6)
            evaluated[kind].append(f"{float(run[0]['evaluation']):.0f}")
    plot.set_xlabel("thousand environment steps", color=INK, fontsize=10)
    plot.set_ylabel("return", color=INK, fontsize=10)
    plot.spines[["top", "right"]].set_visible(False)
    plot.set_ylim(0, 510)
    plot.tick_params(labelsize=9.5, colors=INK)
    for line, (text, color, size) in enumerate(
        (
            ("with memory", BLUE, 13),
            (f"evaluated: {', '.join(evaluated['xlstm'])} of 500", BLUE, 10),
            ("Both see where cart and pole are,", INK, 10),
            ("not how fast they move.", INK, 10),
        )
    ):
        label(axes, (0.95, 3.05 - 0.26 * line), text, color, size, "left")
    label(axes, (2.9, 1.25), "without memory", ORANGE, 13, "left")
    label(axes, (2.9, 1.0), f"evaluated: {', '.join(evaluated['mlp'])}", ORANGE, 10, "left")
    save(figure, "memory")


if __name__ == "__main__":
    with mpl.rc_context(SETTINGS):
        for drawing in (rollout, cells, blocks, chunks, run_life, house, memory):
            drawing()
