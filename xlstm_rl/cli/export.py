"""`xlstm-rl export`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from xlstm_rl.cli.options import read_options, refusing_bad_input
from xlstm_rl.terminal import tell


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained policy as a file that acts without this library.

    It holds one step: observation, reset flag and state in, action and state out.
    """

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, or one checkpoint in it."""

    out: str
    """The file. Of C it ends in .c, and the weights lie beside it."""

    format: Literal["onnx", "pt2", "c"] = "onnx"
    """ONNX, an exported program of PyTorch, or C."""

    check: bool = False
    """Run the file beside the policy for 1,000 steps before it takes its place."""

    overwrite: bool = False
    """Replace existing files."""

    int8: bool = False
    """Of C: keep matrices as bytes, a quarter of the size."""

    trust_code: bool = False
    """Import what the run names of other packages (module:Name), which may run any code."""


def run(args: Sequence[str]) -> int:
    """Write the file and say where it is."""
    options = read_options(ExportOptions, args, "export")
    from xlstm_rl import load_policy  # not needed for the help
    from xlstm_rl.export import export_policy

    with refusing_bad_input():
        path = export_policy(
            load_policy(options.run, trust_code=options.trust_code),
            options.out,
            options.format,
            check=options.check,
            overwrite=options.overwrite,
            int8=options.int8,
        )
    checked = "; acts as the policy does over 1,000 steps" if options.check else ""
    written = [path, path.with_suffix(".weights")] if options.format == "c" else [path]
    sizes = (f"{one} ({one.stat().st_size / 2**10:,.0f} KiB)" for one in written)
    tell(f"wrote {' and '.join(sizes)}{checked}", sys.stdout)
    return 0
