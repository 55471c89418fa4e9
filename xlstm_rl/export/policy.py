"""Write a policy as a file that acts without this library."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from xlstm_rl import __version__
from xlstm_rl.config.errors import one_line
from xlstm_rl.envs.spaces.serialization import space_to_dict
from xlstm_rl.errors import ExportError
from xlstm_rl.export import parity
from xlstm_rl.export.step import ExportedStep
from xlstm_rl.files import replacing
from xlstm_rl.options.arguments import user_path
from xlstm_rl.policy.policy_module import PolicyModule

FORMATS = {
    "onnx": "ONNX, for ONNX Runtime on a machine or in a browser",
    "pt2": "an exported program of PyTorch",
    "c": "one file of C99, and the weights in a file beside it",
}
"""Each format's module in this package, and what it is."""

_FORMAT = "xlstm_rl export 1"


def export_policy(
    policy: PolicyModule,
    path: str | Path,
    format: str = "onnx",
    check: bool = False,
    overwrite: bool = False,
    int8: bool = False,
) -> Path:
    """Write one deterministic step of a policy, with its state as inputs and outputs.

    Normaliser, masks, inputs from the step before and the scale of actions are in it; the batch
    size is free, and one in C. `export/ports.py` has the names of inputs and outputs.

    Args:
        policy: any; it stays as it is.
        path: the file. Of C it ends in `.c`, and the weights are beside it: `.weights`.
        format: one of `FORMATS`.
        check: run the file beside the policy for 1,000 steps before it takes its place.
        overwrite: replace existing files.
        int8: of C: keep matrices as bytes, with a scale for each of their outputs. What `check`
            looks at is then the policy with its weights rounded so.

    Returns:
        The file.

    Raises:
        ExportError: the format is unknown or its package missing, the path exists, the policy has
            an operation that the format lacks, the check found a difference, or nothing can be
            written there. Nothing is written then.
    """
    if format not in FORMATS:
        raise ExportError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    if int8 and format != "c":
        raise ExportError(f"int8 is for format='c', got format={format!r}: leave it out")
    target = user_path(path)
    module = import_module(f"xlstm_rl.export.{format}")
    targets = module.files_of(target) if format == "c" else [target]
    for one in targets:
        if one.exists() and not overwrite:
            raise ExportError(f"{one} exists: choose another name, or overwrite it (--overwrite)")
    if not target.parent.is_dir():
        raise ExportError(f"{target.parent} is not a folder: make it first")
    step = ExportedStep(policy)
    options = {"name": target.stem, "int8": int8} if format == "c" else {}
    try:
        _write(module, step, targets, format, check, options)
    except OSError as error:
        why = error.strerror or one_line(error)
        raise ExportError(f"{target}: cannot be written: {why}") from error
    return target


def _write(
    module: ModuleType,
    step: ExportedStep,
    targets: Sequence[Path],
    format: str,
    check: bool,
    options: Mapping[str, Any],
) -> None:
    with ExitStack() as drafts:
        draft, *_ = [drafts.enter_context(replacing(one)) for one in targets]
        try:
            module.write(step, draft, describe(step), **options)
            if check:
                parity.check(step, module.load(draft), f"the {format} file")
        except ImportError as error:
            raise ExportError(
                f"{format} needs the package {error.name}: install it with "
                '`pip install "xlstm_rl[export]"`'
            ) from error
        except (ExportError, OSError):
            raise
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ExportError(
                f"this policy cannot be written as {format}: {type(error).__name__}: {reason[0]}"
            ) from error


def describe(step: ExportedStep) -> dict[str, Any]:
    """Return what a reader of the file needs to know, as plain values."""
    policy, ports = step.policy, step.ports
    return {
        "format": _FORMAT,
        "xlstm_rl": __version__,
        "observation_space": space_to_dict(policy.observation_space),
        "action_space": space_to_dict(policy.action_space),
        "inputs": [port.description() for port in ports.inputs],
        "outputs": ports.output_names,
    }
