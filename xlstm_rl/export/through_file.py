"""A policy whose steps an exported file takes: what evaluates policies evaluates files."""

import copy
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import build
from xlstm_rl.errors import ExportError
from xlstm_rl.export.parity import Arrays
from xlstm_rl.export.policy import FORMATS
from xlstm_rl.export.ports import Port, ports_of
from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.options.arguments import user_path
from xlstm_rl.policy.auxiliary.reader import AuxiliaryValues
from xlstm_rl.policy.policy import Policy


def through_file(policy: Policy, path: str | Path) -> Policy:
    """Return a policy that acts through an exported file: `evaluate` and actors take it.

    It checks observations and keeps the state as `policy` does; every step is the file's.

    Args:
        policy: that was exported; it stays as it is.
        path: the file; `.onnx`, `.pt2` or `.c`.

    Raises:
        ExportError: the file is of none of these, or what runs it is missing.
    """
    target = user_path(path)
    format = target.suffix.removeprefix(".")
    if format not in FORMATS:
        raise ExportError(
            f"{target}: expected a name that ends in {', '.join('.' + one for one in FORMATS)}"
        )
    run = import_module(f"xlstm_rl.export.{format}").load(target)
    found = copy.copy(policy)
    found.__dict__["step"] = _FileStep(found, run)
    return found


class _FileStep:
    """Takes the place of `PolicyModule.step`."""

    def __init__(self, policy: Policy, run: Any) -> None:
        self._space = policy.action_space
        self._ports = ports_of(policy)
        self._run = run

    def __call__(
        self,
        obs: Observation,
        tensors: StateTensors,
        reset: Tensor | None,
        deterministic: bool = True,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        inplace: bool = False,
        auxiliary: AuxiliaryValues = (None, None),
    ) -> tuple[Any, StateTensors]:
        """Do what `PolicyModule.step` does, with its arguments."""
        if not deterministic:
            raise ExportError("an exported file acts with the most probable action: no samples")
        ports = self._ports
        leaves = [obs] if isinstance(obs, Tensor) else list(obs.values())
        rows = leaves[0].shape[0]
        given = {"reset": reset, "reward": auxiliary[0], "action_mask": auxiliary[1]}
        inputs: Arrays = {
            port.name: _array(port, x) for port, x in zip(ports.observation, leaves, strict=True)
        }
        for port in ports.others:
            x = given[port.name]
            inputs[port.name] = _array(port, port.example(rows) if x is None else x)
        count = len(ports.state)
        own, others = tensors[:count], tensors[count:]  # no action depends on a critic's
        inputs |= {port.name: _array(port, x) for port, x in zip(ports.state, own, strict=True)}
        found = self._run(inputs)
        actions = iter([torch.from_numpy(found[port.name]) for port in ports.action])
        after = [
            torch.from_numpy(found[port.name.replace("state.", "next.", 1)]) for port in ports.state
        ]
        if inplace:
            for old, new in zip(own, after, strict=True):
                old.copy_(new)
            return build(self._space, actions), tensors
        return build(self._space, actions), (*after, *others)


def _array(port: Port, x: Tensor) -> Any:
    return np.ascontiguousarray(x.detach().to("cpu", port.dtype).numpy())
