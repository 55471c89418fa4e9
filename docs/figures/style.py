"""What all drawings share: colours, letters, boxes and arrows."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

IMAGES = Path(__file__).parents[1] / "images"
INK, QUIET, PAPER = "#20242c", "#7a8190", "#ffffff"
BLUE, ORANGE, GREEN, ROSE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SETTINGS = {"svg.hashsalt": "xlstm_rl", "svg.fonttype": "none", "font.family": "sans-serif"}


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many units, one unit an inch, and its axes without frame."""
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return figure, axes


def box(
    axes: Axes,
    middle: tuple[float, float],
    size: tuple[float, float],
    text: str,
    color: str = INK,
    filled: bool = False,
) -> None:
    """Draw a box around its text."""
    (x, y), (w, h) = middle, size
    face = color if filled else PAPER
    style = f"round,pad=0,rounding_size={min(0.08, h / 3)}"
    axes.add_patch(
        FancyBboxPatch((x - w / 2, y - h / 2), w, h, style, facecolor=face, edgecolor=color, lw=1.3)
    )
    label(axes, (x, y), text, PAPER if filled else color)


def label(
    axes: Axes,
    where: tuple[float, float],
    text: str,
    color: str = INK,
    size: float = 9.5,
    align: str = "center",
) -> None:
    """Write text."""
    axes.text(*where, text, color=color, fontsize=size, ha=align, va="center")


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = INK,
    curve: float = 0.0,
) -> None:
    """Draw an arrow from point to point."""
    style = f"arc3,rad={curve}"
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=10,
            lw=1.2,
            color=color,
            connectionstyle=style,
            shrinkA=0,
            shrinkB=0,
        )
    )


def save(figure: Figure, name: str) -> None:
    """Write `docs/images/<name>.svg`, the same bytes for the same drawing."""
    figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
