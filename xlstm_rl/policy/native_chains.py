"""What a network runs in C over whole sequences: a chain for each of its branches."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from xlstm_rl.kernels.native.dense import Layer
from xlstm_rl.kernels.native.held import NotCoveredError
from xlstm_rl.kernels.native.sequence_chain import SequenceChain
from xlstm_rl.memory import StateTensors
from xlstm_rl.memory.baselines import GRUMemory, LSTMMemory
from xlstm_rl.memory.layers import LayerNorm
from xlstm_rl.memory.mlstm_block import MLSTMBlock
from xlstm_rl.memory.slstm_block import SLSTMBlock
from xlstm_rl.memory.stack import XLSTMStack
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.dense import linear_layers
from xlstm_rl.policy.encoders.linear_form import Encoder, behind, encoder_layers
from xlstm_rl.policy.native_step import is_native
from xlstm_rl.policy.structure import Structure

Found = tuple[Tensor, Tensor, Tensor]
"""Outputs of the action head, values `[B, T, 1]`, features of the actor."""


class Size(NamedTuple):
    """What the chains are laid out for."""

    B: int
    T: int
    threads: int


class NetworkChains:
    """The chains of a network, for B sequences of T steps."""

    def __init__(self, network: Any, size: Size) -> None:
        self.network, self.size = network, size
        branches = [network.trunk, network.action_head, network.value_head]
        branches += [] if network.critic_trunk is None else [network.critic_trunk]
        modules = [module for branch in branches for module in branch.modules()]
        self.structure = Structure([network, *modules], modules)
        self._trunks = [one for one in (network.trunk, network.critic_trunk) if one is not None]
        encoders = [encoder_layers(one.encoder) for one in self._trunks]
        self.is_whole = None not in encoders
        """Whether the encoders are in the chains."""
        self.forms = [None if one is None else one[1] for one in encoders]
        """What the encoder of each trunk does first, where that is one matrix made of several."""
        parts: list[nn.Module] = [network.action_head, network.value_head]
        parts += self._trunks if self.is_whole else [one.memory for one in self._trunks]
        # each once, also where two branches share it
        self.weights = [*dict.fromkeys(w for part in parts for w in part.parameters())]
        self.state_of_actor = len(network.trunk.memory.state_keys)
        """How many tensors of a state are the actor's, which stand first."""
        self._lock = threading.Lock()
        self.chains: tuple[SequenceChain | None, ...] = ()
        """Of actor, separate critic, action head and value head; empty: C does not know one."""
        try:
            if is_native(network, encoders=self.is_whole):
                actor, critic = network.trunk, network.critic_trunk
                self.chains = (
                    self._trunk(actor, encoders[0]),
                    None if critic is None else self._trunk(critic, encoders[1]),
                    _head(network.action_head, network, size),
                    _head(network.value_head, network, size),
                )
        except NotCoveredError:
            self.chains = ()

    def _trunk(self, trunk: Any, encoder: Encoder | None) -> SequenceChain:
        if not self.is_whole:
            encoder = None
        return _trunk(trunk, encoder, self.size, wants_dx=not self.is_whole)

    def takes_gradients(self) -> bool:
        """Whether nobody but the weights has to hear of gradients: no encoder, and no hook."""
        return self.is_whole and not any(
            [one._backward_hooks or one._post_accumulate_grad_hooks for one in self.weights]
        )

    def lend(self) -> "Lease | None":
        """Return the right to use the buffers; None: the ordinary way has to be gone."""
        if not self.chains or self.structure.is_watched("forward"):
            return None
        if not all([weight.requires_grad for weight in self.weights]):
            return None
        return Lease(self, self._lock) if self._lock.acquire(blocking=False) else None

    def inputs(self, observation: Observation) -> tuple[Tensor, ...] | None:
        """Return what the chain of the actor reads, and that of a separate critic."""
        if self.is_whole:
            read = [
                observation if form is None else form.features(observation) for form in self.forms
            ]
            vectors = [x for x in read if isinstance(x, Tensor) and x.dim() == 3]
            return tuple(vectors) if len(vectors) == len(read) else None
        found: list[Tensor] = []
        for trunk in self._trunks:  # a critic may read what the actor's encoder made
            encoded = found[0] if trunk.encoder is None else trunk.encoder(observation)
            found.append(encoded.contiguous())
        return tuple(found)

    @property
    def num_codes(self) -> int:
        """Numbers that `inputs` makes of a step beside what it is given."""
        return sum(form.in_features for form in self.forms if form is not None)

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return what the encoders make of `inputs` in torch, for the memory of each trunk."""
        if not self.is_whole:
            return [*inputs]
        found = []
        for trunk, form, x in zip(self._trunks, self.forms, inputs, strict=True):
            found.append(trunk.encoder(x) if form is None else behind(form, trunk.encoder)(x))
        return found

    def forward(
        self, inputs: tuple[Tensor, ...], tensors: StateTensors, reset: Tensor | None
    ) -> Found | None:
        """Return outputs `[B, T, n]`, values `[B, T, 1]` and the actor's features `[B, T, D]`."""
        actor, critic, act, criticize = self.chains
        assert actor is not None and act is not None and criticize is not None
        if not all([form.refresh() for form in self.forms if form is not None]):
            return None
        features = seen = actor.forward(inputs[0], reset, tensors[: self.state_of_actor])
        if critic is not None:
            seen = critic.forward(inputs[1], reset, tensors[self.state_of_actor :])
        if features is None or seen is None:
            return None
        outputs, value = act.forward(features), criticize.forward(seen)
        return None if outputs is None or value is None else (outputs, value, features)

    def backward(
        self,
        doutputs: Tensor | None,
        dvalue: Tensor | None,
        dfeatures: Tensor | None,
        *,
        overwrites: bool = False,
    ) -> tuple[Tensor | None, ...] | None:
        """Return the gradient of each input and weight; None: one is not finite.

        With `overwrites` those of the weights last until the next call that says so, too.
        """
        actor, critic, act, criticize = self.chains
        grads: dict[int, Tensor] = {}
        to_inputs: list[Tensor | None] = []
        try:
            to_actor = _plus(dfeatures, _back(act, doutputs, grads, overwrites))
            from_value = _back(criticize, dvalue, grads, overwrites)
            if critic is None:
                to_actor = _plus(to_actor, from_value)
            to_inputs.append(_back(actor, to_actor, grads, overwrites))
            if critic is not None:
                to_inputs.append(_back(critic, from_value, grads, overwrites))
        except _NotFiniteError:
            return None
        for form in self.forms:
            if form is not None and id(form.weight) in grads:
                own = form.gradients(grads[id(form.weight)], grads[id(form.bias)])
                _add(grads, form.own_weights(), own)
        # the chains write there again, whoever still holds them
        found = [None if one is None or self.is_whole else one.clone() for one in to_inputs]
        return (*found, *[grads.get(id(weight)) for weight in self.weights])

    def release_gradients(self) -> None:
        """Leave the gradients that `backward` may overwrite to whoever has them."""
        for chain in self.chains:
            if chain is not None:
                chain.release_gradients()


class Lease:
    """Buffers belong to one graph: until its backward is done, or the graph is gone."""

    def __init__(self, built: NetworkChains, lock: threading.Lock) -> None:
        self.built, self._lock = built, lock

    def __del__(self) -> None:
        self._lock.release()


class _NotFiniteError(Exception):
    """A gradient is not finite; what then stays where, torch knows."""


def _back(
    chain: SequenceChain | None, dy: Tensor | None, grads: dict[int, Tensor], overwrites: bool
) -> Tensor | None:
    """Return the gradient of a chain's input, and add those of its weights by their `id`."""
    if chain is None or dy is None:  # no loss has touched its output
        return None
    found = chain.backward(dy, overwrites)
    if found is None:
        raise _NotFiniteError
    dx, own = found
    _add(grads, chain.weights, own)
    return dx


def _add(grads: dict[int, Tensor], weights: list[Tensor], new: list[Tensor]) -> None:
    """Add gradients to those that are known: a weight may stand in several places."""
    for weight, grad in zip(weights, new, strict=True):
        known = grads.get(id(weight))
        grads[id(weight)] = grad if known is None else known + grad


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _trunk(trunk: Any, encoder: Encoder | None, size: Size, wants_dx: bool) -> SequenceChain:
    """Return the chain from observations, or from what an encoder made, to features.

    Raises:
        NotCoveredError: C does not know all of it.
        KeyError: a weight is none of the module's own.
    """
    memory = trunk.memory
    layers, form = ([], None) if encoder is None else encoder
    inputs = layers[0][0].in_features if layers else memory.width
    held = trunk if form is None else nn.ModuleList([trunk, form])
    chain = SequenceChain(size.B, size.T, inputs, held, wants_dx)
    if layers:
        chain.layers(_layers(layers))
    if type(memory) in (LSTMMemory, GRUMemory):
        layers = memory.network.num_layers
        for layer in range(layers):
            chain.recurrent(memory.cell_weights(layer), layer, layers, len(memory.state_keys))
        return chain
    if type(memory) is not XLSTMStack:
        raise NotCoveredError
    blocks: list[Any] = list(memory.blocks)
    for block in blocks:
        if type(block) is MLSTMBlock:
            chain.mlstm(*block.as_function())
        elif type(block) is SLSTMBlock:
            chain.slstm(*block.as_function())
        else:
            raise NotCoveredError
    if isinstance(memory.norm, LayerNorm):
        chain.norm(memory.norm.weight)
    return chain


def _head(head: Any, network: Any, size: Size) -> SequenceChain:
    """Return the chain from features to what a head makes of them; errors as of `_trunk`."""
    hidden = linear_layers(head.hidden)
    if hidden is None or type(head.output) is not nn.Linear:
        raise NotCoveredError
    chain = SequenceChain(size.B, size.T, network.trunk.memory.width, head, wants_dx=True)
    chain.layers(_layers([*hidden, (head.output, "none")]))
    return chain


def _layers(layers: list[tuple[Any, str]]) -> list[Layer]:
    return [(one.weight, one.bias, activation) for one, activation in layers]
