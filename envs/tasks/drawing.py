"""Pictures of memory tasks: a few coloured cells over a bar of the time that has passed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

SIZE = 256
"""Height and width of a picture, in pixels; video codecs want a multiple of 16."""

BACKGROUND, EMPTY, AGENT = (24, 24, 32), (58, 60, 72), (245, 245, 245)
RED, GREEN, BLUE, YELLOW = (220, 80, 80), (90, 190, 110), (90, 140, 235), (235, 190, 70)
COLOURS = (RED, GREEN, BLUE, YELLOW)
"""Of choices, in turn."""

_BAR = 16
_ROW = 16
"""The most cells side by side in a list that is drawn in rows."""


def cells_of(count: int) -> Image:
    """Return empty cells for a list of `count` things, in rows of at most 16: `[R, C, 3]`."""
    columns = min(count, _ROW)
    return grid(-(-count // columns), columns)


def grid(rows: int, columns: int) -> Image:
    """Return empty cells `[rows, columns, 3]`."""
    cells = np.empty((rows, columns, 3), np.uint8)
    cells[:] = EMPTY
    return cells


def dim(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the colour of what is there but not shown to the agent."""
    red, green, blue = ((3 * e + c) // 4 for c, e in zip(colour, EMPTY, strict=True))
    return red, green, blue


def picture(cells: Image, progress: float) -> Image:
    """Return an RGB image `[256, 256, 3]` of cells `[R, C, 3]`.

    Args:
        cells: one colour each, drawn as squares with a thin border.
        progress: share of the episode that has passed, 0 to 1: the bar at the bottom.
    """
    rows, columns = cells.shape[:2]
    side = max(1, min((SIZE - 2 * _BAR) // rows, SIZE // columns))
    drawn = cells.repeat(side, 0).repeat(side, 1)[: SIZE - 2 * _BAR, :SIZE]
    if side >= 4:
        drawn[::side] = BACKGROUND
        drawn[:, ::side] = BACKGROUND
    image = np.empty((SIZE, SIZE, 3), np.uint8)
    image[:] = BACKGROUND
    top, left = (SIZE - 2 * _BAR - len(drawn)) // 2, (SIZE - drawn.shape[1]) // 2
    image[top : top + len(drawn), left : left + drawn.shape[1]] = drawn
    image[-_BAR:] = EMPTY
    image[-_BAR:, : round(SIZE * min(max(progress, 0.0), 1.0))] = AGENT
    return image
