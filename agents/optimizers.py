"""Optimisers by their names in torch.optim, with the arguments of their constructors."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from xlstm_rl.config import ConfigError
from xlstm_rl.config.errors import one_line
from xlstm_rl.options.arguments import did_you_mean

_NOT_FOR_THIS = {
    "LBFGS": "it evaluates the loss several times a step",
    "SparseAdam": "it is for sparse gradients",
    "Optimizer": "it is the base of all",
}
_SET_ELSEWHERE = {"lr": "set agent.learning_rate", "params": "it is the policy's"}
_WAYS = {"fused", "foreach", "differentiable", "capturable"}


def torch_optimizer(
    name: str, arguments: Mapping[str, Any], parameters: Sequence[nn.Parameter], lr: float
) -> Optimizer:
    """Return an optimiser of torch.optim, in its fused form where it has one.

    Args:
        name: of its class.
        arguments: of its constructor, but for parameters and step size.
        parameters: what it optimises.
        lr: the step size at the start.

    Raises:
        ConfigError: there is none of that name, or it does not take these arguments.
    """
    known = _known()
    if name in _NOT_FOR_THIS:
        raise ConfigError(f"agent.optimizer={name}: {_NOT_FOR_THIS[name]}; use Adam, AdamW, ...")
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
        raise ConfigError(f"agent.optimizer={name!r}: torch.optim has no such optimiser{hint}")
    make = known[name]
    takes = [one for one in inspect.signature(make.__init__).parameters if one != "self"]
    for one in arguments:
        path = f"agent.optimizer_kwargs.{one}"
        if one in _SET_ELSEWHERE:
            raise ConfigError(f"{path}: not set there; {_SET_ELSEWHERE[one]}")
        if one not in takes:
            own = [name for name in takes if name not in _SET_ELSEWHERE]
            hint = did_you_mean(one, own) or f"; it takes {', '.join(own)}"
            raise ConfigError(f"{path}: no argument of torch.optim.{name}{hint}")
    fused = {"fused": True} if "fused" in takes and not _WAYS & arguments.keys() else {}
    try:
        optimizer: Optimizer = make(parameters, lr=lr, **arguments, **fused)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"agent.optimizer={name}: {one_line(error)}") from error
    return optimizer


def _known() -> dict[str, Any]:
    found = vars(torch.optim).items()
    return {
        name: one
        for name, one in sorted(found)
        if isinstance(one, type) and issubclass(one, Optimizer) and name not in _NOT_FOR_THIS
    }
