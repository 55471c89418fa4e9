"""PPO's loss and its gradient without a graph of torch's, where all that they need is C."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from xlstm_rl.kernels.native.categorical import choice_pass
from xlstm_rl.kernels.native.ppo_loss import loss_and_gradients
from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.actions.categorical import Categorical
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.direct import DirectPass, direct_pass
from xlstm_rl.policy.structure import is_own

Seen = tuple[Observation, StateTensors, Tensor | None]
"""Observations `[N, T]`, the state before the first step, and where episodes start, if any do."""


class DirectLoss(NamedTuple):
    """A loss, its parts, and what adds its gradient to the `.grad` of the weights, once."""

    loss: Tensor
    log: dict[str, Tensor]
    backward: Callable[[], None]


def direct_loss(
    network: ActorCritic,
    seen: Seen,
    action: Tensor,
    old: tuple[Tensor, Tensor, Tensor, Tensor],
    valid: Tensor | None,
    options: tuple[float, ...],
    wants_barrier: bool,
) -> DirectLoss | None:
    """Return PPO's loss of sequences `[N, T]`, the same bits as those of torch's graph.

    Args:
        network: whose loss.
        seen: what it reads.
        action: what was done.
        old: as for `loss_and_gradients`, and so are the next two.
        valid: the steps that count.
        options: of the loss.
        wants_barrier: whether it has a log barrier.

    Returns:
        None: torch has to do it.
    """
    own = "loss_terms", "log_prob_and_entropy", "mean_log_prob"
    if not is_own(network.distribution, Categorical, *own):
        return None
    made = direct_pass(network, *seen)
    choices = None if made is None else choice_pass(made.params, action, wants_barrier)
    if made is None or choices is None:
        return None
    log_prob, entropy, barrier = choices.terms
    found = loss_and_gradients((log_prob, entropy, made.value, barrier), old, valid, options)
    if found is None:
        return None
    loss, log, grads = found
    return DirectLoss(loss, log, partial(_back, made, choices.backward, *grads))


def _back(
    made: DirectPass,
    to_params: Callable[..., Tensor],
    dlog_prob: Tensor,
    dentropy: Tensor,
    dvalue: Tensor,
    dbarrier: Tensor | None,
) -> None:
    made.backward(to_params(dlog_prob, dentropy, dbarrier), dvalue)
