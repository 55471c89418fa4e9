"""Write a policy as a file that acts without this library."""

from importlib import import_module
from pathlib import Path
from typing import Any

from xlstm_rl import __version__
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
}
"""Each format's module in this package, and what it is."""

_FORMAT = "xlstm_rl export 1"


def export_policy(
    policy: PolicyModule,
    path: str | Path,
    format: str = "onnx",
    check: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write one deterministic step of a policy, with its state as inputs and outputs.

    Normaliser, masks, inputs from the step before and the scale of actions are in it; the batch
    size is free. `export/ports.py` has the names of inputs and outputs.

    Args:
        policy: any; it stays as it is.
        path: the file.
        format: one of `FORMATS`.
        check: run the file beside the policy for 1,000 steps before it takes its place.
        overwrite: replace an existing file.

    Returns:
        The file.

    Raises:
        ExportError: the format is unknown or its package missing, the path exists, the policy has
            an operation that the format lacks, or the check found a difference. Nothing is written
            then.
    """
    if format not in FORMATS:
        raise ExportError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    target = user_path(path)
    if target.exists() and not overwrite:
        raise ExportError(f"{target} exists: choose another name, or pass overwrite=True")
    if not target.parent.is_dir():
        raise ExportError(f"{target.parent} is not a folder: make it first")
    module = import_module(f"xlstm_rl.export.{format}")
    step = ExportedStep(policy)
    with replacing(target) as draft:
        try:
            module.write(step, draft, describe(step))
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
    return target


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
