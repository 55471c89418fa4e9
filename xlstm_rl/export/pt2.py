"""pt2: PyTorch's own exported program, for torch without this library."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from xlstm_rl.export.step import ExportedStep
from xlstm_rl.files import torch_file

METADATA = "xlstm_rl.json"


def write(step: ExportedStep, path: Path, description: dict[str, Any]) -> None:
    """Write the step, weights included; the description becomes an extra file in the archive."""
    example = tuple(port.example(2) for port in step.ports.inputs)
    shapes = (tuple({0: torch.export.Dim("batch")} for _ in example),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own future
        program = torch.export.export(step, example, dynamic_shapes=shapes)
        extra = {METADATA: json.dumps(description)}
        with torch_file(path) as file:  # of a name without .pt2 torch would warn
            torch.export.save(program, file, extra_files=extra)


def load(path: Path) -> Any:
    """Return what runs a file: arrays by name in, arrays by name out."""
    extra = {METADATA: ""}
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")
        module = torch.export.load(file, extra_files=extra).module()
    described = json.loads(extra[METADATA])
    into = [port["name"] for port in described["inputs"]]

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with torch.no_grad():
            found = module(*(torch.from_numpy(inputs[name]) for name in into))
        return {name: x.numpy() for name, x in zip(described["outputs"], found, strict=True)}

    return run
