"""A network whose gradients go straight to its weights: where all is C, torch needs no graph."""

from typing import NamedTuple

import torch
from torch import Tensor

from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.native_sequences import WayBack
from xlstm_rl.policy.structure import is_own


class DirectPass(NamedTuple):
    """What a network made of sequences, and the way back."""

    params: Tensor
    """Of the distribution, `[B, T, num_params]`."""

    value: Tensor
    """`[B, T]`."""

    way_back: WayBack

    def backward(self, dparams: Tensor, dvalue: Tensor) -> None:
        """Add the gradients of the weights to their `.grad`, as torch does; once."""
        with torch.no_grad():
            way_back = self.way_back
            found = way_back((dparams, dvalue.unsqueeze(-1), None), (False,) * len(way_back.inputs))
            for weight, grad in zip(way_back.weights, found[len(way_back.inputs) :], strict=True):
                if weight.grad is None:
                    weight.grad = grad
                elif grad is not None:
                    weight.grad += grad


def direct_pass(
    network: ActorCritic, observation: Observation, tensors: StateTensors, reset: Tensor | None
) -> DirectPass | None:
    """Run whole sequences as `network.for_loss` does.

    Returns:
        None: it has to go that way, since something of torch's would hear of the gradients, or a
        part is not in C.
    """
    if network.exploration is not None or network.log_std is not None:
        return None
    if not is_own(network, ActorCritic, "for_loss", "_distribution_params"):
        return None
    if torch.is_anomaly_enabled():  # which looks at each node
        return None
    run = network._native_sequences.run(network, observation, tensors, reset, is_whole=True)
    if run is None:
        return None
    (params, value, _), _, way_back = run
    return DirectPass(params, value.squeeze(-1), way_back)
