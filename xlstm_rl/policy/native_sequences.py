"""Encoders, memories and heads over whole sequences as one node of torch's graph."""

import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.dense import Layer
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.native.sequence_chain import NotCoveredError, SequenceChain
from xlstm_rl.memory import StateTensors
from xlstm_rl.memory.baselines import GRUMemory, LSTMMemory
from xlstm_rl.memory.layers import LayerNorm
from xlstm_rl.memory.mlstm_block import MLSTMBlock
from xlstm_rl.memory.slstm_block import SLSTMBlock
from xlstm_rl.memory.stack import XLSTMStack
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.dense import linear_layers
from xlstm_rl.policy.native_step import is_native
from xlstm_rl.policy.structure import Structure, watched_everywhere

_Found = tuple[Tensor, Tensor, Tensor]


class Outputs(NamedTuple):
    """What a loss needs of a network."""

    outputs: Tensor
    """Of the action head, `[B, T, n]`."""

    value: Tensor
    """`[B, T]`."""

    features: Tensor
    """What the actor's memory made, `[B, T, D]`."""


class NativeSequences:
    """Runs a network for losses that are differentiated once.

    What could tell the difference goes the ordinary way, as in `NativeStep`: hooks, modules and
    weights that were exchanged, frozen or made of others, a second graph while the first one lives.
    A copy of it, and one that was pickled, begins anew.
    """

    def __init__(self) -> None:
        self._built: _Built | None = None

    def __deepcopy__(self, memo: Any) -> "NativeSequences":
        return NativeSequences()

    def __reduce__(self) -> Any:
        return NativeSequences, ()

    def __call__(
        self, network: Any, observation: Observation, tensors: StateTensors, reset: Tensor | None
    ) -> Outputs | None:
        """Return what the network makes; None: go the ordinary way.

        Args:
            network: an `ActorCritic`.
            observation: `[B, T, n]`.
            tensors: the state of all memories before the first step.
            reset: `[B, T]`.
        """
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        x = observation
        if not (isinstance(x, Tensor) and x.dim() == 3 and x.numel()) or watched_everywhere():
            return None
        if x.requires_grad or any([tensor.requires_grad for tensor in tensors]):
            return None
        if not takes_native("auto", x, whole_block=True):
            return None
        size = (*x.shape, num_threads())
        built = self._built
        if built is None or built.size != size or not built.structure.stands():
            built = self._built = _Built(network, size)
        lease = built.lend()
        if lease is None:
            return None
        found: _Found | None = built.forward(x, tensors, reset)
        if found is None:
            return None
        made = _Network.apply(  # type: ignore[no-untyped-call]
            lease, found, (x, tensors, reset), *built.weights
        )
        outputs, value, features = made
        return Outputs(outputs, value.squeeze(-1), features)


class _Built:
    """The chains of a network, for `size`: B, T, size of an observation, threads."""

    def __init__(self, network: Any, size: tuple[int, ...]) -> None:
        self.network, self.size = network, size
        branches = [network.trunk, network.action_head, network.value_head]
        branches += [] if network.critic_trunk is None else [network.critic_trunk]
        modules = [module for branch in branches for module in branch.modules()]
        self.structure = Structure([network, *modules], modules)
        # each once, also where two branches share it
        self.weights = [*dict.fromkeys(w for branch in branches for w in branch.parameters())]
        self._split = len(network.trunk.memory.state_keys)
        self._lock = threading.Lock()
        self._chains: tuple[SequenceChain | None, ...] = ()
        try:
            if is_native(network):
                self._chains = (
                    _trunk(network.trunk, size),
                    None if network.critic_trunk is None else _trunk(network.critic_trunk, size),
                    _head(network.action_head, network, size),
                    _head(network.value_head, network, size),
                )
        except (NotCoveredError, KeyError):  # a weight is made of others, as parametrizations do
            self._chains = ()

    def lend(self) -> "_Lease | None":
        """Return the right to use the buffers; None: the ordinary way has to be gone."""
        if not self._chains or self.structure.is_watched("forward"):
            return None
        if not all([weight.requires_grad for weight in self.weights]):
            return None
        return _Lease(self, self._lock) if self._lock.acquire(blocking=False) else None

    def forward(self, x: Tensor, tensors: StateTensors, reset: Tensor | None) -> _Found | None:
        """Return outputs `[B, T, n]`, values `[B, T, 1]` and the actor's features `[B, T, D]`."""
        actor, critic, act, criticize = self._chains
        assert actor is not None and act is not None and criticize is not None
        features = seen = actor.forward(x, reset, tensors[: self._split])
        if critic is not None:
            seen = critic.forward(x, reset, tensors[self._split :])
        if features is None or seen is None:
            return None
        outputs, value = act.forward(features), criticize.forward(seen)
        return None if outputs is None or value is None else (outputs, value, features)

    def backward(
        self, doutputs: Tensor | None, dvalue: Tensor | None, dfeatures: Tensor | None
    ) -> tuple[Tensor | None, ...] | None:
        """Return the gradient of each weight; None: one is not finite."""
        actor, critic, act, criticize = self._chains
        grads: dict[int, Tensor] = {}
        try:
            to_actor = _plus(dfeatures, _back(act, doutputs, grads))
            from_value = _back(criticize, dvalue, grads)
            if critic is None:
                to_actor = _plus(to_actor, from_value)
            else:
                _back(critic, from_value, grads)
            _back(actor, to_actor, grads)
        except _NotFiniteError:
            return None
        return tuple([grads.get(id(weight)) for weight in self.weights])


class _Lease:
    """Buffers belong to one graph: until its backward is done, or the graph is gone."""

    def __init__(self, built: _Built, lock: threading.Lock) -> None:
        self.built, self._lock = built, lock

    def __del__(self) -> None:
        self._lock.release()


class _NotFiniteError(Exception):
    """A gradient is not finite; what then stays where, torch knows."""


def _back(
    chain: SequenceChain | None, dy: Tensor | None, grads: dict[int, Tensor]
) -> Tensor | None:
    """Return the gradient of a chain's input, and add those of its weights by their `id`."""
    if chain is None or dy is None:  # no loss has touched its output
        return None
    found = chain.backward(dy)
    if found is None:
        raise _NotFiniteError
    dx, own = found
    for weight, grad in zip(chain.weights, own, strict=True):
        known = grads.get(id(weight))
        grads[id(weight)] = grad if known is None else known + grad
    return dx


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        lease: _Lease,
        found: _Found,
        given: tuple[Tensor, StateTensors, Tensor | None],
        *weights: Tensor,
    ) -> _Found:
        ctx.lease, ctx.given, ctx.weights = lease, given, weights
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        lease: _Lease | None = ctx.lease
        if lease is None:
            raise RuntimeError(
                "this loss was differentiated before, and what its gradient needs is freed: call "
                "the network itself, whose graph can be kept"
            )
        ctx.lease = None
        built = lease.built
        found = built.backward(*grads)
        if found is None:
            found = _by_modules(built.network, ctx.given, grads, ctx.weights)
        return None, None, None, *found


def _by_modules(
    network: Any,
    given: tuple[Tensor, StateTensors, Tensor | None],
    grads: tuple[Tensor | None, ...],
    weights: tuple[Tensor, ...],
) -> tuple[Tensor | None, ...]:
    """Return the gradients by running the modules again."""
    with torch.enable_grad():
        made = _made_by_modules(network, *given)
        pairs = [(y, dy) for y, dy in zip(made, grads, strict=True) if dy is not None]
        ys, dys = zip(*pairs, strict=True)
        return torch.autograd.grad(ys, weights, dys, allow_unused=True)


def _made_by_modules(
    network: Any, x: Tensor, tensors: StateTensors, reset: Tensor | None
) -> _Found:
    split = len(network.trunk.memory.state_keys)
    trunk, critic = network.trunk, network.critic_trunk
    features, _ = trunk.memory.forward_tensors(trunk.encoder(x), tensors[:split], reset)
    seen = features
    if critic is not None:
        seen, _ = critic.memory.forward_tensors(critic.encoder(x), tensors[split:], reset)
    return network.action_head(features), network.value_head(seen), features


def _trunk(trunk: Any, size: tuple[int, ...]) -> SequenceChain:
    """Return the chain from observations to features.

    Raises:
        NotCoveredError: C does not know all of it.
        KeyError: a weight is none of the module's own.
    """
    encoder, memory = linear_layers(trunk.encoder), trunk.memory
    chain = SequenceChain(size[0], size[1], size[2], trunk, wants_dx=False)
    if encoder is None:
        raise NotCoveredError
    if encoder:
        chain.layers(_layers(encoder))
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


def _head(head: Any, network: Any, size: tuple[int, ...]) -> SequenceChain:
    """Return the chain from features to what a head makes of them; errors as of `_trunk`."""
    hidden = linear_layers(head.hidden)
    if hidden is None or type(head.output) is not nn.Linear:
        raise NotCoveredError
    chain = SequenceChain(size[0], size[1], network.trunk.memory.width, head, wants_dx=True)
    chain.layers(_layers([*hidden, (head.output, "none")]))
    return chain


def _layers(layers: list[tuple[nn.Linear, str]]) -> list[Layer]:
    return [(one.weight, one.bias, activation) for one, activation in layers]
