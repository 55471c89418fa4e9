"""PPO's loss and its gradient without a graph of torch's, where all that they need is C."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from xlstm_rl.agents.loss_data import LossData
from xlstm_rl.kernels.native.choice_loss import placed_choice_loss
from xlstm_rl.kernels.native.number_loss import placed_number_loss
from xlstm_rl.kernels.native.ppo_loss import PlacedLoss, run_once
from xlstm_rl.policy.actions.categorical import Categorical, MultiCategorical
from xlstm_rl.policy.actions.gaussian import DiagonalGaussian
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.auxiliary.inputs import ACTION_MASK
from xlstm_rl.policy.direct import DirectPass, add_gradient, has_plain_params
from xlstm_rl.policy.structure import is_own

_OWN = ("loss_terms", "log_prob_and_entropy", "mean_log_prob")
"""What a distribution of somebody's own may do otherwise."""


class DirectLoss(NamedTuple):
    """A loss, its parts, and what adds its gradient to the `.grad` of the weights, once."""

    loss: Tensor
    log: dict[str, Tensor]
    backward: Callable[[Tensor], None] | None
    """None: torch differentiates it, and its graph reaches to the weights."""


def direct_loss(network: ActorCritic, made: DirectPass, data: LossData) -> DirectLoss | None:
    """Return PPO's loss of sequences `[N, T]`, the same bits as those of torch's graph.

    Args:
        network: whose loss.
        made: what it made of them.
        data: of these sequences.

    Returns:
        None: torch has to do it.
    """
    placed = placed_loss(network, made, data)
    found = None if placed is None else run_once(placed)
    if placed is None or found is None:
        return None
    return DirectLoss(*found, partial(_back, network, made, placed))


def placed_loss(network: ActorCritic, made: DirectPass, data: LossData) -> PlacedLoss | None:
    """Return the call that makes the loss of `direct_loss`, of the same arguments.

    Returns:
        None: there is none, or torch has to do it.
    """
    if not has_plain_params(network):
        return None
    distribution, seen = network.distribution, data.observation
    mask = None if isinstance(seen, Tensor) else seen.get(ACTION_MASK)
    rest = data.action, made.value, data.old, data.valid, data.options
    if is_own(distribution, Categorical, *_OWN):
        return placed_choice_loss(made.outputs, *rest, data.wants_barrier, None, mask)
    if isinstance(distribution, MultiCategorical):
        if not is_own(distribution, MultiCategorical, *_OWN, "logits"):
            return None
        counts = distribution.counts
        return placed_choice_loss(made.outputs, *rest, data.wants_barrier, counts, mask)
    if isinstance(distribution, DiagonalGaussian) and is_own(distribution, DiagonalGaussian, *_OWN):
        return placed_number_loss(made.outputs, network.log_std, *rest, distribution.spread)
    return None


def _back(network: ActorCritic, made: DirectPass, placed: PlacedLoss, _: Tensor) -> None:
    if placed.dlog_std is not None and network.log_std is not None:
        add_gradient(network.log_std, placed.dlog_std.sum((0, 1)))
    made.backward(placed.doutputs, placed.dvalue)
