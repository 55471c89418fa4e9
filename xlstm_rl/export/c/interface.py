"""What a caller in C sees: the fields of inputs and outputs, and the size of the state."""

import math
import re
from typing import Any, NamedTuple

from xlstm_rl.export.c.actions import Part
from xlstm_rl.export.c.names import c_type
from xlstm_rl.export.step import ExportedStep


class Field(NamedTuple):
    """A field of a structure."""

    name: str
    type: str
    """Of its numbers."""

    port: str
    """Its name in the other formats; empty for parameters, which they lack."""

    shape: tuple[int, ...]


class Interface:
    """Of a policy in C.

    Args:
        step: that is exported.
        names: of the fields, by the names of the ports.
        parts: the distributions of the action's leaves.
    """

    def __init__(self, step: ExportedStep, names: dict[str, str], parts: list[Part]) -> None:
        ports = step.ports
        self.inputs, self.actions = (
            [Field(names[port.name], c_type(port), port.name, port.shape) for port in some]
            for some in ((*ports.observation, *ports.others), ports.action)
        )
        self.params = [
            Field(part.params, "float", "", (part.distribution.num_params,)) for part in parts
        ]
        self.dtypes = {port.name: str(port.dtype).split(".")[-1] for port in ports.action}
        self.offsets: dict[str, int] = {}
        self.state = self.memory = 0
        for port in ports.state:
            self.offsets[port.name] = self.state
            self.state += math.prod(port.shape)
            if port.name.startswith("state.previous."):
                self.memory = self.state

    def description(self) -> dict[str, Any]:
        """Return what a caller from Python needs to know beside the ports."""
        return {
            "state": self.state,
            "inputs": [[one.name, one.type, one.port] for one in self.inputs],
            "outputs": [[one.name, one.type, one.shape] for one in (*self.actions, *self.params)],
            "dtypes": self.dtypes,
        }

    def input_lines(self) -> str:
        """Return the fields of the inputs as C."""
        return "\n".join(map(_input, self.inputs))

    def output_lines(self) -> str:
        """Return the fields of the outputs as C."""
        return "\n".join(map(_output, (*self.actions, *self.params)))


def _input(field: Field) -> str:
    if field.port == "reset":
        return "  int reset; /* not 0 where the observation is the first of an episode */"
    if field.port == "reward":
        return "  float reward; /* of the last action */"
    leaf = re.sub(r"[^ -~]|[*/\\?]", "_", field.port.partition(".")[2])
    comment = f"{_shape(field.shape)}, {leaf}" if leaf else _shape(field.shape)
    return f"  const {field.type} *{field.name}; /* {comment} */"


def _output(field: Field) -> str:
    bounds = f"[{math.prod(field.shape)}]" if field.shape else ""
    return f"  {field.type} {field.name}{bounds}; /* {_shape(field.shape)} */"


def _shape(shape: tuple[int, ...]) -> str:
    return str(list(shape)) if shape else "one"
