"""From a policy to the text of a C file, its weights, and what a caller needs to know of them."""

import hashlib
import json
import re
from importlib.resources import files
from typing import Any

from xlstm_rl.export.c.actions import (
    Part,
    mask_from_info,
    mask_from_observation,
    parts_of,
    write_explored_std,
    write_part,
)
from xlstm_rl.export.c.interface import Interface
from xlstm_rl.export.c.memories import run_memory
from xlstm_rl.export.c.names import field_names, identifier
from xlstm_rl.export.c.network import encode, run_layers
from xlstm_rl.export.c.program import Program, refuse
from xlstm_rl.export.c.reading import Reader
from xlstm_rl.export.c.remembering import write_acted
from xlstm_rl.export.step import ExportedStep

_INCLUDE = re.compile(r'^#include "([\w.]+)"\n', re.MULTILINE)
_TEMPLATE = "policy_template.c"


def write_source(
    step: ExportedStep, description: dict[str, Any], name: str, int8: bool
) -> tuple[str, bytes]:
    """Return the C file and the weights file.

    Args:
        step: that is exported.
        description: of spaces, inputs and outputs; the C file holds it.
        name: of the file; functions are called after it.
        int8: keep matrices as bytes.

    Raises:
        ExportError: the policy has something that this format lacks.
    """
    _refuse_hooks(step)
    names = field_names((*step.ports.inputs, *step.ports.action))
    parts = parts_of(step, names)
    interface, program = Interface(step, names, parts), Program(int8)
    _write_step(program, step, names, interface, parts)
    declared, defined = write_acted(program, parts, interface.offsets.get("state.previous.action"))
    body = "\n".join("  " + line for line in program.lines)
    code = f"{body} {defined} {interface.state} {int8}".encode()
    layout = int.from_bytes(hashlib.sha256(code).digest()[:8], "little")
    headers = bundle([*program.headers, "weights_file.h"])
    prefix = _prefix(name, headers)
    own = {"name": prefix, "int8": int8, "work": program.work, "weights": program.weights.size}
    whole = {**description, "c": {**own, **interface.description()}}
    marks = {
        "VERSION": description["xlstm_rl"],
        "INPUTS": interface.input_lines(),
        "OUTPUTS": interface.output_lines(),
        "STATE": max(interface.state, 1),
        "WORK": program.work,
        "OWN_WORK": program.own_work,
        "BYTES": program.weights.size,
        "LAYOUT": layout,
        "HEADERS": headers,
        "BODY": body,
        "DESCRIPTION": _literal(json.dumps(whole)),
        "LOWER": prefix,
        "UPPER": prefix.upper(),
    }
    text = (files("xlstm_rl.export.c") / _TEMPLATE).read_text("utf-8")
    text = text.replace("@ACTED@", defined).replace("@ACTED_DECLARED@", declared)
    filled = re.sub(r"@([A-Z_]+)@", lambda mark: str(marks[mark[1]]), text)
    return filled, program.weights.to_bytes(layout)


def _prefix(name: str, headers: str) -> str:
    """Return what functions are called after, so that none is called as one of the headers is."""
    found = identifier(name)
    ends = "step|acted|check|weights|inputs|outputs|description|state|work|bytes|declared"
    taken = re.search(rf"\b{found}_({ends})\b", headers, re.IGNORECASE)
    return f"policy_{found}" if taken else found


def _write_step(
    program: Program,
    step: ExportedStep,
    fields: dict[str, str],
    interface: Interface,
    parts: list[Part],
) -> None:
    policy, network, offsets = step.policy, step.policy.network, interface.offsets
    x = encode(program, network.trunk.encoder, Reader(program, step, fields, offsets))
    x = run_memory(program, network.trunk.memory, interface.memory, x)
    head = network.action_head
    outputs = run_layers(program, [head.hidden, head.output], x)
    if policy.auxiliary_reader.source == "info":
        mask_from_info(program, outputs)
    elif step.mask is not None:
        names = {
            port.name.removeprefix("obs."): fields[port.name] for port in step.ports.observation
        }
        mask_from_observation(program, step.mask, names, outputs)
    feature = offsets.get("state.previous.action")
    for part in parts:
        place = None if feature is None else f"state + {feature}"
        write_part(program, part, outputs, network.log_std, place)
        if network.exploration is not None:
            write_explored_std(program, part, x, network.exploration)
        if feature is not None:
            feature += part.distribution.num_features
    if policy.auxiliary.state_shapes:
        program.say(f"state[{offsets['state.previous.started']}] = 1;")


def _refuse_hooks(step: ExportedStep) -> None:
    for name, module in step.policy.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            refuse(f"the forward hook of {name or 'the policy'}")


def bundle(names: list[str]) -> str:
    """Return headers one after the other, each behind those that it includes."""
    found: dict[str, str] = {}

    def take(name: str) -> None:
        if name in found:
            return
        text = _read(name)
        for other in _INCLUDE.findall(text):
            take(other)
        found[name] = text

    for name in names:
        take(name)
    bare = {name: _INCLUDE.sub("", x).replace("#pragma once\n", "") for name, x in found.items()}
    return "\n".join(f"/* ---- {name} ---- */\n{text.strip()}\n" for name, text in bare.items())


def _read(name: str) -> str:
    """Return a header of this folder, or one that the native backend has too."""
    own = files("xlstm_rl.export.c") / name
    path = own if own.is_file() else files("xlstm_rl.kernels.native") / "src" / name
    return path.read_text("utf-8")


def _literal(text: str) -> str:
    """Return text as string literals of C, in short pieces."""
    pieces = [text[at : at + 90] for at in range(0, len(text), 90)]
    quoted = (
        piece.replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?") for piece in pieces
    )
    return "\n".join(f'    "{piece}"' for piece in quoted)
