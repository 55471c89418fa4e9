"""ONNX: a file for ONNX Runtime, on a machine or in a browser."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xlstm_rl.errors import ExportError
from xlstm_rl.export.step import ExportedStep
from xlstm_rl.versions import installed_version

METADATA = "xlstm_rl"
_OPSET = 18
_ONNXSCRIPT = (0, 7)
"""Earlier ones fail on what torch 2.8 hands them (0.5.7, 0.6.0), or print (0.6.2)."""


def write(step: ExportedStep, path: Path, description: dict[str, Any]) -> None:
    """Write the step, weights included; the description becomes the model's metadata.

    Raises:
        ExportError: onnxscript, with which torch writes ONNX, is too old.
    """
    found = installed_version("onnxscript")
    if found < _ONNXSCRIPT:
        oldest = "{}.{}".format(*_ONNXSCRIPT)
        raise ExportError(
            f"onnx needs onnxscript {oldest} or newer, and {found[0]}.{found[1]} is installed: "
            f'`pip install "onnxscript>={oldest}"`'
        )
    with _quiet():
        program = torch.onnx.export(
            step,
            tuple(port.example(2) for port in step.ports.inputs),
            dynamo=True,
            opset_version=_OPSET,
            input_names=step.ports.input_names,
            output_names=step.ports.output_names,
            dynamic_shapes=(tuple({0: torch.export.Dim("batch")} for _ in step.ports.inputs),),
            verbose=False,
        )
    if program is None:  # only the exporter that `dynamo` replaces returns nothing
        raise RuntimeError("torch.onnx.export returned no program")
    program.model.metadata_props[METADATA] = json.dumps(description)
    program.save(path, external_data=False)


def load(path: Path) -> Any:
    """Return what runs a file: arrays by name in, arrays by name out, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = session.run(names, inputs)
        return {name: np.asarray(x) for name, x in zip(names, found, strict=True)}

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to themselves what the exporter says of other packages and of its own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
