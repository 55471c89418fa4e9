"""Draw the pictures of the documentation: `python docs/figures/draw.py`.

Each is an SVG in `docs/images/`, the same bytes whenever it is drawn.
"""

import matplotlib as mpl
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


def rollout() -> None:
    """Two environments over ten steps: a termination, a truncation, what is carried on."""
    figure, axes = canvas(9.2, 3.5)
    width, left, ends = 0.62, 1.9, {0: (3, "terminated", ORANGE), 1: (6, "truncated", BLUE)}
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
    label(
        axes,
        (left + 6.6 * width, 1.65),
        "bootstrap: V(final observation), from the old memory",
        BLUE,
        8.5,
        "left",
    )
    label(axes, (left - 0.3, 3.2), "stored state", ROSE, 9)
    label(axes, (left + 10 * width, 3.2), "carried into the next rollout", ROSE, 9)
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
        label(axes, (left + 2.0, 2.95), "h", INK)
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
    figure, axes = canvas(9.2, 4.0)
    rows = [
        [("cli", INK)],
        [("agents", BLUE), ("comparing", QUIET), ("inspection", QUIET)],
        [("callbacks", QUIET), ("evaluation", BLUE), ("distributed", QUIET)],
        [("collection", BLUE), ("runs", BLUE), ("export", QUIET), ("torchrl", QUIET)],
        [("policy", BLUE), ("normalization", QUIET), ("returns", QUIET)],
        [("memory", ORANGE), ("envs", GREEN), ("config", QUIET)],
        [("kernels: reference, torch, native, triton", ORANGE)],
    ]
    for level, names in enumerate(rows):
        y = 3.7 - level * 0.55
        width = 4.6 if len(names) == 1 and level else 1.75
        for place, (name, color) in enumerate(names):
            x = 4.6 + (place - (len(names) - 1) / 2) * 2.05
            box(axes, (x, y), (width, 0.38), name, color)
    arrow(axes, (0.45, 3.8), (0.45, 0.3), QUIET)
    label(axes, (0.15, 0.15), "imports", QUIET, 9, "left")
    save(figure, "house")


if __name__ == "__main__":
    with mpl.rc_context(SETTINGS):
        for drawing in (rollout, cells, chunks, house):
            drawing()
