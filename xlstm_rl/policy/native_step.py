"""The actor's step in one native call, where every part of the network is one that C knows."""

import threading
from typing import Any

import torch
from torch import Tensor, nn

from xlstm_rl.kernels.native.choose import LOADED, takes_native
from xlstm_rl.kernels.native.policy_step import StepChain
from xlstm_rl.memory import StateTensors
from xlstm_rl.memory.layers import LayerNorm
from xlstm_rl.memory.mlstm_block import MLSTMBlock
from xlstm_rl.memory.stack import XLSTMStack
from xlstm_rl.normalization import Observation

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.Tanh: "tanh", nn.ReLU: "relu", nn.SiLU: "silu"}
_GLOBAL_HOOKS = (
    nn.modules.module._global_forward_hooks,
    nn.modules.module._global_forward_pre_hooks,
)
_MOST_SIZES = 8  # numbers of rows whose chains are kept


def overwriting_pays(memory: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a step that overwrites its state costs less than one that makes a new one.

    A kernel writes where it read, on a GPU or natively; torch's operations copy once more.
    """
    native = LOADED and dtype is torch.float32 and type(memory) is XLSTMStack
    return device.type == "cuda" or native


class NativeStep:
    """Runs encoder, memory and action head of an actor in one call.

    An encoder that is no plain row of linear layers runs in torch, in front of it. What could tell
    the difference goes the ordinary way: gradients, hooks, modules that were exchanged for others,
    autocast, `torch.func`. A copy of it, and one that was pickled, begins anew.
    """

    def __init__(self) -> None:
        self._built: dict[int, _Built | None] = {}
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> "NativeStep":
        return NativeStep()

    def __reduce__(self) -> Any:
        return NativeStep, ()

    def __call__(
        self,
        trunk: Any,
        head: nn.Module,
        observation: Observation,
        tensors: StateTensors,
        reset: Tensor | None,
        inplace: bool,
    ) -> tuple[Tensor, Tensor, StateTensors] | None:
        """Return outputs of the head, features and state after; None: go the ordinary way."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not tensors:
            return None
        memory = trunk.memory
        if type(memory) is not XLSTMStack:
            return None
        if not takes_native(memory.config.backend, tensors[0], whole_block=True):
            return None
        rows = tensors[0].shape[0]
        built = self._built.get(rows)
        if built is None or not built.is_current():
            built = self._build(trunk, head, rows)
        if any(_GLOBAL_HOOKS) or built.has_hooks() or built.chain is None:
            return None
        x = observation if built.is_whole else trunk.encoder(observation)
        if not isinstance(x, Tensor):
            return None
        found = built.chain.run(x, reset, tensors, inplace)
        if found is None:
            return None
        (features, out), after = found
        return out, features, after

    def _build(self, trunk: Any, head: nn.Module, rows: int) -> "_Built":
        with self._lock:
            while len(self._built) >= _MOST_SIZES:
                self._built.pop(next(iter(self._built)))
            self._built[rows] = built = _Built(trunk, head, rows)
        return built


class _Built:
    """A chain for a number of rows, and the modules that it stands for."""

    def __init__(self, trunk: Any, head: Any, rows: int) -> None:
        encoder = _layers(trunk.encoder)
        self.is_whole = encoder is not None
        modules = [*trunk.memory.modules(), *head.modules()]
        modules += list(trunk.encoder.modules()) if self.is_whole else []
        self._modules = modules
        self._children = [
            (one._modules, name, child)
            for one in (trunk, *modules)
            for name, child in one._modules.items()
        ]
        self.chain = _chain(trunk, head, rows, encoder or [])

    def is_current(self) -> bool:
        """Whether every module is still where it was."""
        return all(owner.get(name) is child for owner, name, child in self._children)

    def has_hooks(self) -> bool:
        """Whether somebody wants to see what goes through a module."""
        return any(one._forward_hooks or one._forward_pre_hooks for one in self._modules)


def _chain(
    trunk: Any, head: Any, rows: int, encoder: list[tuple[nn.Linear, str]]
) -> StepChain | None:
    """Return the chain; None: there is a part that C does not know."""
    hidden = _layers(head.hidden)
    memory: XLSTMStack = trunk.memory
    if hidden is None or type(head.output) is not nn.Linear or "step_tensors" in vars(memory):
        return None
    inputs = encoder[0][0].in_features if encoder else memory.width
    chain = StepChain(rows, inputs, nn.ModuleList([trunk, head]))
    for layer, activation in encoder:
        chain.linear(layer.weight, layer.bias, activation)
    blocks: list[Any] = list(memory.blocks)
    for block in blocks:
        if "step" in vars(block):
            return None
        if isinstance(block, MLSTMBlock):
            chain.mlstm(*block.as_function())
        else:
            chain.slstm(*block.as_function())
    if isinstance(memory.norm, LayerNorm):
        chain.norm(memory.norm.weight)
    chain.hand_out()
    for layer, activation in (*hidden, (head.output, "none")):
        chain.linear(layer.weight, layer.bias, activation)
    chain.hand_out()
    return chain


def _layers(module: nn.Module) -> list[tuple[nn.Linear, str]] | None:
    """Return linear layers, each with the name of its activation; None: it is something else."""
    parts = list(module) if isinstance(module, nn.Sequential) else [module]
    found: list[tuple[nn.Linear, str]] = []
    for part in parts:
        activation = _ACTIVATIONS.get(type(part))
        if type(part) is nn.Linear:
            found.append((part, "none"))
        elif activation is not None and found and found[-1][1] == "none":
            found[-1] = (found[-1][0], activation)
        else:
            return None
    return found
