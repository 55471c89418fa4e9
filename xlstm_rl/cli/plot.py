"""`xlstm-rl plot`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from xlstm_rl.cli.options import read_options
from xlstm_rl.terminal import tell


@dataclass(frozen=True)
class PlotOptions:
    """Draw a metric of runs against environment steps.

    Runs that differ in nothing but their seed are one line: their mean, in a band that is its
    95 % bootstrap interval. The legend names what sets the experiments apart.
    """

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN...")]
    """Run folders, or folders that hold runs."""

    out: str
    """The figure: a name that ends in .png, .svg, .pdf or .html. An existing one is replaced."""

    metric: str = "episode/return"
    """A column of metrics.csv, such as episode/length, loss/entropy or time/sps."""

    smooth: int = 1
    """Draw the mean of so many updates around each; 1: every value as it is."""


def run(args: Sequence[str]) -> int:
    """Draw the figure and say where it is."""
    options = read_options(PlotOptions, args, "plot")
    from xlstm_rl.runs.plotting import plot_runs  # not needed for the help

    tell(
        f"wrote {plot_runs(options.runs, options.out, options.metric, options.smooth)}", sys.stdout
    )
    return 0
