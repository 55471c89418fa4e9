"""Linear layers in a row, each with its activation: as modules of torch, or in one native call."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from xlstm_rl.kernels.native.dense import Layer, run_layers
from xlstm_rl.policy.activations import ACTIVATIONS
from xlstm_rl.policy.structure import is_watched, watched_everywhere

_ACTIVATIONS = {kind: name for name, kind in ACTIVATIONS.items()} | {nn.Tanh: "tanh"}


class MLP(nn.Sequential):
    """`nn.Sequential`, in one native call where all parts are linear layers and activations."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what comes out of the last part."""
        found = run_dense(x, *self)
        if found is None:
            found = cast(Tensor, super().forward(x))  # type: ignore[no-untyped-call]
        return found


def run_dense(x: Tensor, *modules: nn.Module) -> Tensor | None:
    """Run linear layers with their activations natively, one module after the other.

    Returns:
        What comes out of the last one; None: it has to be done module by module, where a part is
        something else, or where somebody looks on.
    """
    layers: list[tuple[nn.Linear, str]] = []
    for module in modules:
        found = _layers_behind(layers, module)
        if found is None or any(map(is_watched, module.modules())):
            return None
        layers = found
    if not layers or watched_everywhere() or _has_dispatch_mode():
        return None
    given: list[Layer] = [(one.weight, one.bias, activation) for one, activation in layers]
    return run_layers(x, given)


def linear_layers(
    module: nn.Module, kinds: tuple[type, ...] = (nn.Linear,)
) -> list[tuple[Any, str]] | None:
    """Return linear layers, each with the name of its activation; None: it is something else.

    Args:
        module: one layer, or several in a row.
        kinds: what passes for a linear layer.
    """
    return _layers_behind([], module, kinds)


def _layers_behind(
    layers: list[tuple[Any, str]], module: nn.Module, kinds: tuple[type, ...] = (nn.Linear,)
) -> list[tuple[Any, str]] | None:
    """Return layers and those of a module behind them; None: it is something else."""
    parts = list(module) if isinstance(module, nn.Sequential) else [module]
    found = list(layers)
    for part in parts:
        activation = _ACTIVATIONS.get(type(part))
        if type(part) in kinds:
            found.append((part, "none"))
        elif activation is not None and found and found[-1][1] == "none":
            found[-1] = (found[-1][0], activation)
        else:
            return None
    return found


def _has_dispatch_mode() -> bool:
    """Whether a mode looks on that sees torch's operations alone, such as one that counts them."""
    return not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0
