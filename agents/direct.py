"""PPO's loss and its gradient without a graph of torch's, where all that they need is C."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from xlstm_rl.agents.loss_data import LossData
from xlstm_rl.kernels.native.categorical import choice_pass
from xlstm_rl.kernels.native.choice_loss import choice_loss, placed_choice_loss
from xlstm_rl.kernels.native.gaussian import number_pass
from xlstm_rl.kernels.native.number_loss import placed_number_loss
from xlstm_rl.kernels.native.ppo_loss import PlacedLoss, loss_and_gradients
from xlstm_rl.kernels.native.terms import LossPass
from xlstm_rl.policy.actions.base import ActionDistribution
from xlstm_rl.policy.actions.categorical import Categorical, MultiCategorical, summed
from xlstm_rl.policy.actions.gaussian import DiagonalGaussian
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.direct import DirectPass, PlainParams, has_plain_params, plain_params
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
    _, action, old, valid, options, wants_barrier = data
    chooses = _is_one_choice(network)
    terms_of = None if chooses else _terms_of(network.distribution, wants_barrier)
    if not chooses and terms_of is None:
        return None
    plain = plain_params(network, made, data.observation)
    if plain is None:
        return None
    if terms_of is None:
        whole = choice_loss(plain.params, action, made.value, old, valid, options, wants_barrier)
        if whole is None:
            return None
        back = partial(_from_params, made, plain, whole.dlogits, whole.dvalue)
        return DirectLoss(whole.loss, whole.parts, back)
    terms = terms_of(plain.params, action)
    if terms is None:
        return None
    log_prob, entropy, barrier = terms.terms
    found = loss_and_gradients((log_prob, entropy, made.value, barrier), old, valid, options)
    if found is None:
        return None
    loss, log, grads = found
    return DirectLoss(loss, log, partial(_back, made, plain, terms.backward, *grads))


def placed_loss(network: ActorCritic, made: DirectPass, data: LossData) -> PlacedLoss | None:
    """Return the call that makes PPO's loss of what a network says, the same bits as `direct_loss`.

    Arguments are those of `direct_loss`.

    Returns:
        None: there is none, or torch has to do it.
    """
    if not has_plain_params(network, data.observation):
        return None
    distribution = network.distribution
    rest = data.action, made.value, data.old, data.valid, data.options
    if _is_one_choice(network):
        return placed_choice_loss(made.outputs, *rest, data.wants_barrier)
    if isinstance(distribution, DiagonalGaussian) and is_own(distribution, DiagonalGaussian, *_OWN):
        return placed_number_loss(made.outputs, network.log_std, *rest, distribution.spread)
    return None


def _is_one_choice(network: ActorCritic) -> bool:
    """Whether an action is one choice, and a loss of it what `Categorical` says."""
    return is_own(network.distribution, Categorical, *_OWN)


def _terms_of(
    distribution: ActionDistribution, wants_barrier: bool
) -> Callable[[Tensor, Tensor], LossPass | None] | None:
    """Return what makes a loss's terms of parameters and actions, of several choices or of numbers.

    None: torch has to.
    """
    if isinstance(distribution, MultiCategorical):
        if is_own(distribution, MultiCategorical, *_OWN, "logits", "in_a_row"):
            return partial(_choices_pass, distribution, wants_barrier)
        return None
    if isinstance(distribution, DiagonalGaussian) and is_own(distribution, DiagonalGaussian, *_OWN):
        return partial(number_pass, spread=distribution.spread)
    return None


def _choices_pass(
    choices: MultiCategorical, wants_mean: bool, params: Tensor, action: Tensor
) -> LossPass | None:
    """As `choice_pass`, for several choices side by side."""
    found = choice_pass(choices.logits(params), action, wants_mean)
    if found is None:
        return None
    return LossPass(summed(found.terms), partial(_choices_back, choices, action.shape, found))


def _choices_back(
    choices: MultiCategorical, shape: torch.Size, found: LossPass, *grads: Tensor | None
) -> Tensor:
    # each choice has the gradient of the sum
    each = [None if one is None else one.unsqueeze(-1).expand(shape) for one in grads]
    return choices.in_a_row(found.backward(*each)).contiguous()


def _back(
    made: DirectPass,
    plain: PlainParams,
    to_params: Callable[..., Tensor],
    dlog_prob: Tensor,
    dentropy: Tensor,
    dvalue: Tensor,
    dbarrier: Tensor | None,
    _: Tensor,
) -> None:
    _from_params(made, plain, to_params(dlog_prob, dentropy, dbarrier), dvalue)


def _from_params(
    made: DirectPass, plain: PlainParams, dparams: Tensor, dvalue: Tensor, *_: Tensor
) -> None:
    made.backward(plain.backward(dparams), dvalue)
