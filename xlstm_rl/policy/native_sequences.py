"""A network over whole sequences as one node of torch's graph.

Encoders are part of it where they are linear layers in a row. What others make, of images, choices
or several parts, is its input.
"""

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
        """Return what the network makes; None: go the ordinary way.

        Args:
            network: an `ActorCritic`.
            observation: `[B, T, n]`.
            tensors: the state of all memories before the first step.
            reset: `[B, T]`.
        """
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        lead = _lead_of(observation)
        if lead is None or watched_everywhere() or any([one.requires_grad for one in tensors]):
            return None
        built = self._stands(network, lead)
        lease = None if built is None else built.lend()
        if built is None or lease is None:
            return None
        inputs = built.inputs(observation)
        found = None if inputs is None else built.forward(inputs, tensors, reset)
        if inputs is None or found is None:
            return None
        made = _Network.apply(  # type: ignore[no-untyped-call]
            lease, found, (tensors, reset), len(inputs), *inputs, *built.weights
        )
        outputs, value, features = made
        return Outputs(outputs, value.squeeze(-1), features)

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


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        lease: Lease,
        found: Found,
        given: tuple[StateTensors, Tensor | None],
        num_inputs: int,
        *tensors: Tensor,
    ) -> Found:
        ctx.lease, ctx.given, ctx.num_inputs = lease, given, num_inputs
        ctx.inputs = [one.detach() for one in tensors[:num_inputs]]
        ctx.weights = tensors[num_inputs:]
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        lease: Lease | None = ctx.lease
        if lease is None:
            raise RuntimeError(
                "this loss was differentiated before, and what its gradient needs is freed: call "
                "the network itself, whose graph can be kept"
            )
        ctx.lease = None
        found = lease.built.backward(*grads)
        if found is None:
            wanted = ctx.needs_input_grad[4 : 4 + ctx.num_inputs]
            found = _by_modules(lease.built, ctx.inputs, wanted, ctx.given, grads, ctx.weights)
        return None, None, None, None, *found


def _by_modules(
    built: NetworkChains,
    inputs: list[Tensor],
    wanted: tuple[bool, ...],
    given: tuple[StateTensors, Tensor | None],
    grads: tuple[Tensor | None, ...],
    weights: tuple[Tensor, ...],
) -> tuple[Tensor | None, ...]:
    """Return the gradients by running the modules again."""
    with torch.enable_grad():
        leaves = [x.requires_grad_(asked) for x, asked in zip(inputs, wanted, strict=True)]
        made = _made_by_modules(built, leaves, *given)
        pairs = [(y, dy) for y, dy in zip(made, grads, strict=True) if dy is not None]
        ys, dys = zip(*pairs, strict=True)
        asked = [x for x in leaves if x.requires_grad]
        found = iter(torch.autograd.grad(ys, (*asked, *weights), dys, allow_unused=True))
        own = [next(found) if x.requires_grad else None for x in leaves]
        return (*own, *found)


def _made_by_modules(
    built: NetworkChains, inputs: list[Tensor], tensors: StateTensors, reset: Tensor | None
) -> Found:
    network = built.network
    split = len(network.trunk.memory.state_keys)
    trunk, critic = network.trunk, network.critic_trunk
    encoded = inputs
    if built.is_whole:
        trunks = (trunk,) if critic is None else (trunk, critic)
        encoded = [one.encoder(x) for one, x in zip(trunks, inputs, strict=True)]
    features, _ = trunk.memory.forward_tensors(encoded[0], tensors[:split], reset)
    seen = features
    if critic is not None:
        seen, _ = critic.memory.forward_tensors(encoded[1], tensors[split:], reset)
    return network.action_head(features), network.value_head(seen), features
