"""`xlstm-rl plot`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from xlstm_rl.cli.options import read_options


@dataclass(frozen=True)
class PlotOptions:
    """Draw the return of runs against environment steps.

    Runs that differ in nothing but their seed share a colour, and their mean is drawn thick.
    """

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN...")]
    """Run folders."""

    out: str
    """The figure: a name that ends in .png, .svg or .pdf. An existing one is replaced."""


def run(args: Sequence[str]) -> int:
    """Draw the figure and say where it is."""
    options = read_options(PlotOptions, args, "plot")
    from xlstm_rl.runs.plotting import plot_runs  # not needed for the help

    print(f"wrote {plot_runs(options.runs, options.out)}")
    return 0
