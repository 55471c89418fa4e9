"""A network over whole sequences as one node of torch's graph.

Encoders are part of it where they are linear layers in a row. What others make, of images, choices
or several parts, is its input.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.native_chains import Found, Lease, NetworkChains, Size
from xlstm_rl.policy.structure import watched_everywhere

Grads = tuple[Tensor | None, ...]


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
        self._built: NetworkChains | None = None

    def __deepcopy__(self, memo: Any) -> "NativeSequences":
        return NativeSequences()

    def __reduce__(self) -> Any:
        return NativeSequences, ()

    def __call__(
        self, network: Any, observation: Observation, tensors: StateTensors, reset: Tensor | None
    ) -> Outputs | None:
        """Return what the network makes, part of a graph; None: go the ordinary way.

        Args:
            network: an `ActorCritic`.
            observation: `[B, T, n]`.
            tensors: the state of all memories before the first step.
            reset: `[B, T]`.
        """
        run = self.run(network, observation, tensors, reset)
        if run is None:
            return None
        found, inputs, way_back = run
        made = _Network.apply(  # type: ignore[no-untyped-call]
            found, way_back, len(inputs), *inputs, *way_back.weights
        )
        outputs, value, features = made
        return Outputs(outputs, value.squeeze(-1), features)

    def run(
        self,
        network: Any,
        observation: Observation,
        tensors: StateTensors,
        reset: Tensor | None,
        is_whole: bool = False,
    ) -> "tuple[Found, tuple[Tensor, ...], WayBack] | None":
        """Return what the network makes, out of which inputs, and the way back.

        Arguments are those of a call; with `is_whole`, None also where something of torch's has to
        hear of the gradients: encoders in front of the inputs, or hooks at weights.
        """
        lead = _lead_of(observation)
        if lead is None or any([one.requires_grad for one in tensors]):
            return None
        lease = self.lend(network, lead, is_whole)
        if lease is None:
            return None
        inputs = lease.built.inputs(observation)
        found = None if inputs is None else lease.built.forward(inputs, tensors, reset)
        if inputs is None or found is None:
            return None
        return found, inputs, WayBack(lease, inputs, tensors, reset)

    def lend(self, network: Any, lead: tuple[int, int], is_whole: bool = False) -> Lease | None:
        """Return the right to run the chains of B sequences of T steps; None: not now.

        Args:
            network: an `ActorCritic`.
            lead: B and T.
            is_whole: as for `run`.
        """
        if not torch.is_grad_enabled() or torch.compiler.is_compiling() or watched_everywhere():
            return None
        built = self._stands(network, lead)
        if built is None or (is_whole and not built.takes_gradients()):
            return None
        return built.lend()

    def release_gradients(self) -> None:
        """Leave the gradients that a way back may overwrite to whoever has them."""
        if self._built is not None:
            self._built.release_gradients()

    def _stands(self, network: Any, lead: tuple[int, int]) -> "NetworkChains | None":
        """Return what was built for B and T, built now if need be; None: C is not to be used."""
        if not takes_native("auto", network.any_weight, whole_block=True):
            return None
        size = Size(*lead, num_threads())
        built = self._built
        if built is None or built.size != size or not built.structure.stands():
            built = self._built = NetworkChains(network, size)
        return built


def _lead_of(observation: Observation) -> tuple[int, int] | None:
    """Return B and T; None: there is nothing, or something that C does not take."""
    parts = [observation] if isinstance(observation, Tensor) else [*observation.values()]
    if not parts or any([one.requires_grad or one.dim() < 2 for one in parts]):
        return None
    B, T = parts[0].shape[:2]
    return (B, T) if B and T else None


class WayBack:
    """Goes from the gradients of what a network made to those of inputs and weights, once."""

    def __init__(
        self, lease: Lease, inputs: tuple[Tensor, ...], tensors: StateTensors, reset: Tensor | None
    ) -> None:
        self._lease: Lease | None = lease
        self.weights = lease.built.weights
        self.inputs = [one.detach() for one in inputs]
        self._given = tensors, reset

    def __call__(self, grads: Grads, wanted: tuple[bool, ...], overwrites: bool = False) -> Grads:
        """Return the gradients of all inputs, then those of all weights.

        Args:
            grads: those of outputs, value and features.
            wanted: whether that of an input is asked for.
            overwrites: whether the next way back that says so, too, may overwrite those of the
                weights.
        """
        lease = self._lease
        if lease is None:
            raise RuntimeError(
                "this loss was differentiated before, and what its gradient needs is freed: call "
                "the network itself, whose graph can be kept"
            )
        self._lease = None
        found = lease.built.backward(*grads, overwrites=overwrites)
        if found is None:
            found = _by_modules(lease.built, self.inputs, wanted, self._given, grads, self.weights)
        return found


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, found: Found, way_back: WayBack, num_inputs: int, *_: Tensor) -> Found:
        ctx.way_back, ctx.num_inputs = way_back, num_inputs
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        wanted = ctx.needs_input_grad[3 : 3 + ctx.num_inputs]
        return None, None, None, *ctx.way_back(grads, wanted)


def _by_modules(
    built: NetworkChains,
    inputs: list[Tensor],
    wanted: tuple[bool, ...],
    given: tuple[StateTensors, Tensor | None],
    grads: Grads,
    weights: Sequence[Tensor],
) -> Grads:
    """Return the gradients by running the modules again."""
    with torch.enable_grad():
        leaves = [x.requires_grad_(asked) for x, asked in zip(inputs, wanted, strict=True)]
        made = _made_by_modules(built, leaves, *given)
        pairs = [(y, dy) for y, dy in zip(made, grads, strict=True) if dy is not None]
        ys, dys = zip(*pairs, strict=True)
        asked = [x for x in leaves if x.requires_grad]
        found = iter(_apart(torch.autograd.grad(ys, (*asked, *weights), dys, allow_unused=True)))
        own = [next(found) if x.requires_grad else None for x in leaves]
        return (*own, *found)


def _apart(grads: Grads) -> Grads:
    """Return gradients that optimisers take: each in memory of its own, its numbers in a row.

    Of a sum all terms have the same tensor, and of what stands side by side each has a part.
    """
    places: set[int] = set()
    found: list[Tensor | None] = []
    for grad in grads:
        own = grad
        if own is not None and (own.data_ptr() in places or not own.is_contiguous()):
            own = own.clone(memory_format=torch.contiguous_format)
        if own is not None:
            places.add(own.data_ptr())
        found.append(own)
    return tuple(found)


def _made_by_modules(
    built: NetworkChains, inputs: list[Tensor], tensors: StateTensors, reset: Tensor | None
) -> Found:
    network = built.network
    split = len(network.trunk.memory.state_keys)
    trunk, critic = network.trunk, network.critic_trunk
    encoded = built.encode(inputs)
    features, _ = trunk.memory.forward_tensors(encoded[0], tensors[:split], reset)
    seen = features
    if critic is not None:
        seen, _ = critic.memory.forward_tensors(encoded[1], tensors[split:], reset)
    return network.action_head(features), network.value_head(seen), features
