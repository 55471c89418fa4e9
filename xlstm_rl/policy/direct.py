"""A network whose gradients go straight to its weights: where all is C, torch needs no graph."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.native_chains import Lease
from xlstm_rl.policy.native_sequences import WayBack
from xlstm_rl.policy.structure import is_own


class DirectPass(NamedTuple):
    """What a network made of sequences, in no graph, and the way back."""

    outputs: Tensor
    """Of the action head, `[B, T, num_outputs]`."""

    value: Tensor
    """`[B, T]`."""

    features: Tensor
    """What the actor's memory made, `[B, T, D]`."""

    backward: Callable[..., None]
    """Takes the gradients of these three, once; None, and of the last one nothing: there is none.
    Those of the weights are added to their `.grad`, as torch does."""


class LossInputs(NamedTuple):
    """What a loss is made of, where torch has its graph."""

    params: Tensor
    """Of the distribution, `[B, T, num_params]`."""

    value: Tensor
    """`[B, T]`."""

    backward: Callable[[Tensor], None] | None
    """Differentiates a loss, once; None: torch does it, as the graph reaches to the weights."""


def direct_pass(
    network: ActorCritic, observation: Observation, tensors: StateTensors, reset: Tensor | None
) -> DirectPass | None:
    """Run whole sequences as `network.for_loss` does.

    Returns:
        None: it has to go that way, since something of torch's would hear of the gradients, or a
        part is not in C.
    """
    if not _needs_no_graph(network):
        return None
    run = network._native_sequences.run(network, observation, tensors, reset, is_whole=True)
    if run is None:
        return None
    (outputs, value, features), _, way_back = run
    return DirectPass(outputs, value.squeeze(-1), features, partial(_to_weights, way_back))


def lend_chains(network: ActorCritic, lead: tuple[int, int]) -> Lease | None:
    """Return the right to run what `direct_pass` runs, for B sequences of T steps.

    Returns:
        None: as there.
    """
    if not _needs_no_graph(network):
        return None
    return network._native_sequences.lend(network, lead, is_whole=True)


def has_plain_params(network: ActorCritic) -> bool:
    """Whether a distribution's parameters are the outputs, and behind them its own, if any.

    Its own are those that no observation changes, `network.log_std`. Of choices an action mask
    stands over the outputs.
    """
    free = network.log_std
    return (
        network.exploration is None
        and (free is None or _is_own_leaf(network, free))
        and is_own(network, ActorCritic, "_distribution_params")
    )


def loss_inputs(
    network: ActorCritic,
    observation: Observation,
    tensors: StateTensors,
    reset: Tensor | None,
    made: DirectPass | None,
) -> LossInputs:
    """Return what a loss in a graph of torch's is made of.

    The graph begins at what the network made, where that is known: from there back it is C.

    Args:
        network: whose loss.
        observation: as for `network.for_loss`, and so are the next two.
        tensors: the state before the first step.
        reset: where episodes start.
        made: what `direct_pass` made of these; None: the network runs here.
    """
    if made is None:
        return LossInputs(*network.for_loss(observation, tensors, reset), None)
    outputs, value, features = (
        one.detach().requires_grad_() for one in (made.outputs, made.value, made.features)
    )
    params = network._distribution_params(outputs, observation, features)

    def backward(loss: Tensor) -> None:
        torch.autograd.backward(loss)
        made.backward(outputs.grad, value.grad, features.grad)

    return LossInputs(params, value, backward)


def release_gradients(network: ActorCritic) -> None:
    """Leave the gradients that the weights have now to whoever keeps them."""
    network._native_sequences.release_gradients()


def _to_weights(
    way_back: WayBack,
    doutputs: Tensor | None,
    dvalue: Tensor | None,
    dfeatures: Tensor | None = None,
) -> None:
    """Add the gradients of the weights to their `.grad`.

    Where no weight has a gradient yet, the new ones last until the next such call, but for
    `release_gradients` between them.
    """
    with torch.no_grad():
        grads = (doutputs, None if dvalue is None else dvalue.unsqueeze(-1), dfeatures)
        # a gradient that is there may be the one of the call before
        overwrites = not any([weight.grad is not None for weight in way_back.weights])
        found = way_back(grads, (False,) * len(way_back.inputs), overwrites)
        pairs = zip(way_back.weights, found[len(way_back.inputs) :], strict=True)
        if overwrites:  # each stands there once, and has none
            for weight, grad in pairs:
                weight.grad = grad
        else:
            for weight, grad in pairs:
                add_gradient(weight, grad)


def add_gradient(weight: Tensor, grad: Tensor | None) -> None:
    """Add to a weight's `.grad`, as torch does."""
    if weight.grad is None:
        weight.grad = grad
    elif grad is not None:
        weight.grad += grad


def _needs_no_graph(network: ActorCritic) -> bool:
    # anomaly detection looks at each node
    return is_own(network, ActorCritic, "for_loss") and not torch.is_anomaly_enabled()


def _is_own_leaf(network: ActorCritic, weight: Tensor) -> bool:
    """Whether a weight of the network itself is trained, and nobody else hears of its gradient."""
    hooks = weight._backward_hooks or weight._post_accumulate_grad_hooks
    return network._parameters.get("log_std") is weight and weight.requires_grad and not hooks
