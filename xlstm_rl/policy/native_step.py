"""The actor's step in one native call, where every part of the network is one that C knows."""

import contextlib
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xlstm_rl.kernels.native.choose import LOADED, takes_native
from xlstm_rl.kernels.native.dense import ACTIVATIONS
from xlstm_rl.kernels.native.held import NotCoveredError
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.native.policy_step import StepChain
from xlstm_rl.memory import StateTensors
from xlstm_rl.memory.baselines import GRUMemory, LSTMMemory
from xlstm_rl.memory.layers import LayerNorm
from xlstm_rl.memory.mlstm_block import MLSTMBlock
from xlstm_rl.memory.stack import XLSTMStack
from xlstm_rl.normalization import NestedNormalizer, Observation, ObservationNormalizer
from xlstm_rl.policy.auxiliary.inputs import OBSERVATION, PREVIOUS_ACTION
from xlstm_rl.policy.dense import linear_layers
from xlstm_rl.policy.encoders.linear_form import Encoder, encoder_layers
from xlstm_rl.policy.structure import Structure, watched_everywhere

_MOST_SIZES = 8  # numbers of rows whose chains are kept

_Key = tuple[int, bool, bool, int]
"""Rows, whether observations are raw, whether there is a previous action beside them, threads."""

Normalizer = ObservationNormalizer | NestedNormalizer


class RawInput(NamedTuple):
    """How raw observations become what a network reads."""

    normalizer: Normalizer

    beside: StateTensors = ()
    """The state of `AuxiliaryInputs` that read the previous action and nothing else."""

    join: Callable[[Observation], Observation] | None = None
    """Puts the previous action beside normalised observations, where there is one."""

    def read(self, observation: Observation) -> Observation:
        """Return what the network reads of raw observations."""
        x: Observation = self.normalizer(observation)
        return x if self.join is None else self.join(x)


def overwriting_pays(memory: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a step that overwrites its state costs less than one that makes a new one.

    A kernel writes where it read, on a GPU or natively; torch's operations copy once more.
    """
    native = LOADED and dtype is torch.float32 and type(memory) is XLSTMStack
    return device.type == "cuda" or native


def is_native(network: Any, encoders: bool = True) -> bool:
    """Whether all that takes time in an `ActorCritic` runs in C: encoders, memories and heads.

    Args:
        network: that network.
        encoders: whether they are asked for, too.
    """
    trunks = [one for one in (network.trunk, network.critic_trunk) if one is not None]
    weight = network.any_weight
    for trunk in trunks:
        memory, encoder = trunk.memory, trunk.encoder
        if type(memory) is XLSTMStack:
            blocks: list[Any] = list(memory.blocks)
            if any(block.as_function()[1].is_ablated for block in blocks):
                return False
        elif type(memory) not in (LSTMMemory, GRUMemory):
            return False
        backend = getattr(memory.config, "backend", "auto")
        if not takes_native(backend, weight, whole_block=True):
            return False
        if encoders and encoder is not None and not _is_native(encoder_layers(encoder)):
            return False
    return all(_is_native_dense(head.hidden) for head in (network.action_head, network.value_head))


def _is_native_dense(module: nn.Module) -> bool:
    layers = linear_layers(module)
    return _is_native(None if layers is None else (layers, None))


def _is_native(encoder: Encoder | None) -> bool:
    return encoder is not None and all(activation in ACTIVATIONS for _, activation in encoder[0])


class NativeStep:
    """Runs normaliser, encoder, memory and action head of an actor in one call.

    An encoder that C does not know (`encoder_layers`), such as one of images, runs in torch in
    front of it. So does the normaliser of all but numbers, alone or beside the previous action.
    What could tell the difference goes the ordinary way: gradients, hooks, modules that were
    exchanged for others, autocast, `torch.func`. A copy of it, and one that was pickled, begins
    anew.
    """

    def __init__(self) -> None:
        self._built: dict[_Key, _Built] = {}
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
        raw: RawInput | None = None,
        features: bool = True,
    ) -> tuple[Tensor, Any, StateTensors] | None:
        """Return outputs of the head, features and state after; None: go the ordinary way.

        Args:
            trunk: the actor's encoder and memory.
            head: the actor's.
            observation: of B environments, as the encoder reads it, or as `raw` says.
            tensors: the state of the memory.
            reset: `[B]`.
            inplace: overwrite the state.
            raw: how raw observations become what the encoder reads.
            features: whether they are asked for; None stands in their place else.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not tensors:
            return None
        memory = trunk.memory
        if type(memory) is not XLSTMStack:
            return None
        if not takes_native(memory.config.backend, tensors[0], whole_block=True):
            return None
        normalizer, beside = (None, ()) if raw is None else raw[:2]
        key = tensors[0].shape[0], raw is not None, bool(beside), num_threads()
        built = self._built.get(key)
        if built is None or not built.is_current(normalizer):
            built = self._build(key, trunk, head, normalizer)
        if built.chain is None or watched_everywhere() or built.structure.is_watched("step"):
            return None
        if built.raw is not None:
            x: Any = observation
            if x.ndim != 2 or x.dtype is not built.raw.number_dtype:
                x = built.raw.flatten(x)
        elif beside:
            return None
        else:
            x = observation if raw is None else raw.read(observation)
            x = built.read(trunk, x)
        if not isinstance(x, Tensor):
            return None
        found = built.chain.run(x, reset, tensors, inplace, not features, beside)
        if found is None:
            return None
        outputs, after = found
        return outputs[-1], outputs[0] if features else None, after

    def _build(
        self, key: _Key, trunk: Any, head: nn.Module, normalizer: Normalizer | None
    ) -> "_Built":
        with self._lock:
            while len(self._built) >= _MOST_SIZES:
                self._built.pop(next(iter(self._built)))
            self._built[key] = built = _Built(key[0], trunk, head, normalizer, key[2])
        return built


class _Built:
    """A chain for a number of rows, and the modules that it stands for."""

    def __init__(
        self, rows: int, trunk: Any, head: Any, normalizer: Normalizer | None, beside: bool
    ) -> None:
        encoder = self._encoder = encoder_layers(trunk.encoder)
        self._normalizer = normalizer
        modules = [*trunk.memory.modules(), *head.modules()]
        modules += [] if encoder is None else list(trunk.encoder.modules())
        # what the chain can do itself: numbers, of a class that it knows
        self.raw: ObservationNormalizer | None = None
        reads = [OBSERVATION, PREVIOUS_ACTION] if beside else None
        fits = encoder is not None and reads == (encoder[1] and encoder[1].vectors)
        if type(normalizer) is ObservationNormalizer and normalizer.is_vector and fits:
            self.raw = normalizer
            modules += list(normalizer.modules())
        self.structure = Structure([trunk, *modules])
        self.chain: StepChain | None = None
        with contextlib.suppress(NotCoveredError):
            self.chain = _chain(rows, trunk, head, encoder or ([], None), self.raw)

    def read(self, trunk: Any, x: Observation) -> Any:
        """Return what the chain reads of a normalised observation."""
        if self._encoder is None:
            return trunk.encoder(x)
        form = self._encoder[1]
        return x if form is None else form.features(x)

    def is_current(self, normalizer: Normalizer | None) -> bool:
        """Whether every module is still where it was."""
        return normalizer is self._normalizer and self.structure.stands()


def _chain(
    rows: int,
    trunk: Any,
    head: Any,
    encoder: Encoder,
    raw: ObservationNormalizer | None,
) -> StepChain | None:
    """Return the chain; None: there is a part that C does not know."""
    hidden = linear_layers(head.hidden)
    memory: XLSTMStack = trunk.memory
    if hidden is None or type(head.output) is not nn.Linear or "step_tensors" in vars(memory):
        return None
    layers, form = encoder
    inputs = layers[0][0].in_features if layers else memory.width
    if raw is None:
        own = [trunk, head] if form is None else [trunk, head, form]
        chain = StepChain(rows, inputs, nn.ModuleList(own))
    else:
        own = [raw, trunk, head] if form is None else [raw, trunk, head, form]
        numbers = math.prod(raw.observation_shape)
        chain = StepChain(rows, numbers, nn.ModuleList(own), raw.number_dtype)
        has_moments, beside = raw.moments is not None, inputs - numbers
        if has_moments or raw.is_wide or beside:
            center, scale = (raw.center, raw.scale) if has_moments else (None, None)
            chain.normalise(center, scale, raw.clip, beside)
    if form is not None:
        chain.joined(form)
    for layer, activation in layers:
        chain.linear(layer.weight, layer.bias, activation)
    blocks: list[Any] = list(memory.blocks)
    for block in blocks:
        if "step" in vars(block) or block.as_function()[1].is_ablated:
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
