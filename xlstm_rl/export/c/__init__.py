"""C: one C99 file and a file of weights, for any machine that has a C compiler.

| file | what |
|---|---|
| `source.py`, `interface.py` | the text of the C file, and what a caller sees of it |
| `program.py`, `weights.py`, `names.py` | statements, the weights file, names |
| `reading.py`, `network.py`, `memories.py`, `rivals.py`, `actions.py` | the parts of a step |
| `remembering.py` | actions that a caller took instead |
| `compiled.py` | compiles a file and calls it |
| `*.h`, `policy_template.c` | what is put together, with headers of `kernels/native/src` |
"""

from pathlib import Path
from typing import Any

from xlstm_rl.errors import ExportError
from xlstm_rl.export.c.compiled import load as load
from xlstm_rl.export.c.rounding import round_weights
from xlstm_rl.export.c.source import write_source
from xlstm_rl.export.step import ExportedStep


def files_of(path: Path) -> list[Path]:
    """Return what is written: the C file and the weights beside it."""
    if path.suffix != ".c":
        raise ExportError(f"{path}: the name of a C file must end in .c")
    path = path.resolve() if path.is_symlink() else path  # both where a link leads to
    return [path, path.with_suffix(".weights")]


def write(
    step: ExportedStep,
    path: Path,
    description: dict[str, Any],
    name: str = "policy",
    int8: bool = False,
) -> None:
    """Write the C file, and the weights into the file beside it.

    Args:
        step: of the policy; with `int8` its weights are rounded to what the file holds.
        path: of the C file.
        description: of spaces, inputs and outputs.
        name: functions are called after it.
        int8: keep matrices as bytes, with a scale for each row.
    """
    if int8:
        round_weights(step.policy)
    text, weights = write_source(step, description, name, int8)
    source, beside = files_of(path)
    beside.write_bytes(weights)
    source.write_text(text, "utf-8")
