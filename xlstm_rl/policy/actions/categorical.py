"""Distributions over choices: one of n, and several choices side by side."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from xlstm_rl.kernels.native.categorical import (
    choice_terms,
    equations,
    mean_equations,
)
from xlstm_rl.kernels.native.terms import Terms
from xlstm_rl.policy.actions.base import ActionDistribution, torch_dtype
from xlstm_rl.policy.config import DistributionConfig
from xlstm_rl.policy.structure import is_own

MASKED_LOGIT = -1e30
"""The logit of a choice that must not be taken: its probability is exactly 0, and what has
probability 0 adds 0 to entropies and gradients, where minus infinity would make NaN of both."""

LEAST_LOGIT = -1e29
"""The logits of the other choices count as this much at least, so that each is above a masked one.
"""

_PADDING_LOGIT = -1e31  # below a masked one: no choice at all

_PARTS = "log_prob_and_entropy", "mean_log_prob"
"""What `loss_terms` makes in one pass, unless a subclass has its own."""


class Categorical(ActionDistribution):
    """One of `n` choices; the parameters are logits `[..., n]`.

    Args:
        n: how many choices.
        start: the first element of the environment's space.
        dtype: of an action of the environment.
    """

    action_shape = ()
    action_dtype = torch.int64
    choices: Tensor

    def __init__(self, n: int, start: int = 0, dtype: torch.dtype = torch.int64) -> None:
        super().__init__()
        self.num_params = self.num_features = n
        self.start, self.env_dtype = _as_int64(start), dtype
        self.register_buffer("choices", torch.arange(n), persistent=False)

    @classmethod
    def for_space(
        cls, space: gymnasium.Space[Any], options: DistributionConfig
    ) -> ActionDistribution | None:
        """Return the distribution over one choice, or over several side by side."""
        if isinstance(space, spaces.Discrete):
            return Categorical(int(space.n), int(space.start), torch_dtype(space.dtype))
        if isinstance(space, spaces.MultiDiscrete):
            counts, starts = space.nvec.ravel().tolist(), space.start.ravel().tolist()
            return MultiCategorical(counts, starts, space.shape, torch_dtype(space.dtype))
        if isinstance(space, spaces.MultiBinary):
            size = int(np.prod(space.shape))
            return MultiCategorical([2] * size, None, space.shape, torch_dtype(space.dtype))
        return None

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw actions `[...]` by the exponential race: argmax of p / Exp(1) has law p."""
        race = torch.empty_like(params).exponential_(generator=generator)
        return (params - race.log_()).argmax(-1)

    def mode(self, params: Tensor) -> Tensor:
        """Return the choices `[...]` with the largest logit."""
        return params.argmax(-1)

    def log_prob_and_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy of choices `[...]`."""
        return _terms(params, action, False)[:2]

    def loss_terms(self, params: Tensor, action: Tensor, wants_mean: bool) -> Terms:
        """Return both, and `mean_log_prob` if it is asked for."""
        if not is_own(self, Categorical, *_PARTS):
            return super().loss_terms(params, action, wants_mean)
        return _terms(params, action, wants_mean)

    def mean_log_prob(self, params: Tensor) -> Tensor:
        """Return the mean over the choices that are not masked of their log-probabilities."""
        return mean_equations(params)

    def shown(self, params: Tensor) -> dict[str, Tensor]:
        """Return the probability of each choice, named as the environment has it."""
        first = _from_int64(self.start, self.env_dtype)
        probability = params.softmax(-1).unbind(-1)
        return {f"probability/{first + i}": one for i, one in enumerate(probability)}

    def decision(self, params: Tensor, action: Tensor) -> Tensor:
        """Return the log-odds `[..., 1]` of choices `[...]`."""
        return _log_odds(params, action).unsqueeze(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """Shift choices to the first element of the environment's space, in its dtype."""
        shifted = action + self.start if self.start else action
        return shifted if self.env_dtype == torch.int64 else shifted.to(self.env_dtype)

    def from_env(self, action: Tensor) -> Tensor:
        """Return choices `[...]`, counted from 0."""
        return action.long() - self.start

    def features(self, action: Tensor) -> Tensor:
        """Return the one-hot code `[..., n]`."""
        # not one_hot: on a CPU it looks for the largest index first
        return (action.unsqueeze(-1) == self.choices).float()

    def write_features(self, action: Tensor, out: Tensor) -> None:
        """Write what `features` returns over another tensor, in one operation."""
        if not is_own(self, Categorical, "features"):
            return super().write_features(action, out)
        torch.eq(action.unsqueeze(-1), self.choices, out=out)


class MultiCategorical(ActionDistribution):
    """K independent choices, the k-th of `counts[k]`; the parameters are their logits in a row.

    Args:
        counts: how many choices each of the K has.
        starts: the first element of each in the environment's space; None: 0.
        shape: of an action of the environment, K elements; None: `[K]`.
        dtype: of an action of the environment.
    """

    action_dtype = torch.int64
    choices: Tensor
    starts: Tensor
    place: Tensor
    number: Tensor

    def __init__(
        self,
        counts: list[int],
        starts: list[int] | None = None,
        shape: tuple[int, ...] | None = None,
        dtype: torch.dtype = torch.int64,
    ) -> None:
        super().__init__()
        self.num_params = self.num_features = sum(counts)
        self.action_shape = (len(counts),)
        self.env_shape, self.env_dtype = shape or self.action_shape, dtype
        self.counts = tuple(counts)
        self._equal = len(set(counts)) == 1
        widest, place, at = max(counts), [], 0
        for count in counts:  # behind the last logit stands one that is masked, for the padding
            place.append([*range(at, at + count), *[self.num_params] * (widest - count)])
            at += count
        number = torch.tensor([k for k, count in enumerate(counts) for _ in range(count)])
        value = torch.tensor([c for count in counts for c in range(count)])
        self.register_buffer("place", torch.tensor(place), persistent=False)
        self.register_buffer("number", number, persistent=False)
        self.register_buffer("choices", value, persistent=False)
        first = torch.tensor([_as_int64(start) for start in starts or [0] * len(counts)])
        self.register_buffer("starts", first, persistent=False)

    def logits(self, params: Tensor) -> Tensor:
        """Return the logits `[..., K, widest]`, padded with masked ones."""
        if self._equal:
            return params.reshape(*params.shape[:-1], *self.place.shape)
        above = params.clamp(min=MASKED_LOGIT)
        padded: Tensor = nn.functional.pad(above, (0, 1), value=_PADDING_LOGIT)
        return padded[..., self.place]

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw actions `[..., K]`, as `Categorical` does."""
        logits = self.logits(params)
        race = torch.empty_like(logits).exponential_(generator=generator)
        return (logits - race.log_()).argmax(-1)

    def mode(self, params: Tensor) -> Tensor:
        """Return the choices `[..., K]` with the largest logits."""
        return self.logits(params).argmax(-1)

    def log_prob_and_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return joint log-probability and entropy of choices `[..., K]`: sums over the K."""
        return self._terms(params, action, False)[:2]

    def loss_terms(self, params: Tensor, action: Tensor, wants_mean: bool) -> Terms:
        """Return both, and `mean_log_prob` if it is asked for."""
        if not is_own(self, MultiCategorical, *_PARTS):
            return super().loss_terms(params, action, wants_mean)
        return self._terms(params, action, wants_mean)

    def _terms(self, params: Tensor, action: Tensor, wants_mean: bool) -> Terms:
        """Return what a loss asks of all K together: in C where it can be."""
        found = None
        if is_own(self, MultiCategorical, "logits"):
            found = choice_terms(params, action, wants_mean, self.counts)
        return _summed(_terms(self.logits(params), action, wants_mean)) if found is None else found

    def mean_log_prob(self, params: Tensor) -> Tensor:
        """Return the sum over the K of such means."""
        return mean_equations(self.logits(params)).sum(-1)

    def shown(self, params: Tensor) -> dict[str, Tensor]:
        """Return the probability of each choice, after the index of its number."""
        probability = self.logits(params).softmax(-1)
        found = {}
        for k, places in enumerate(self.place.tolist()):
            first = _from_int64(int(self.starts[k]), self.env_dtype)
            for choice in range(sum(place < self.num_params for place in places)):
                found[f"probability/{k}/{first + choice}"] = probability[..., k, choice]
        return found

    def decision(self, params: Tensor, action: Tensor) -> Tensor:
        """Return the log-odds `[..., K]` of choices `[..., K]`."""
        return _log_odds(self.logits(params), action)

    def to_env(self, action: Tensor) -> Tensor:
        """Shift choices to the first elements of the environment's space, in its shape."""
        shifted = (action + self.starts).to(self.env_dtype)
        return shifted.reshape(*action.shape[:-1], *self.env_shape)

    def from_env(self, action: Tensor) -> Tensor:
        """Return choices `[..., K]`, each counted from 0."""
        batch = action.shape[: action.ndim - len(self.env_shape)]
        return action.long().reshape(*batch, *self.action_shape) - self.starts

    def features(self, action: Tensor) -> Tensor:
        """Return the one-hot codes side by side `[..., sum of counts]`."""
        return (action[..., self.number] == self.choices).float()


def _terms(logits: Tensor, action: Tensor, wants_mean: bool) -> Terms:
    """Return what a loss asks of choices `[...]`: in C where it can be."""
    found = choice_terms(logits, action, wants_mean)
    if found is None:
        found = *equations(logits, action), mean_equations(logits) if wants_mean else None
    return found


def _summed(terms: Terms) -> Terms:
    """Return what a loss asks of choices side by side, the last dimension of its terms."""
    log_prob, entropy, mean = terms
    return log_prob.sum(-1), entropy.sum(-1), None if mean is None else mean.sum(-1)


def _log_odds(logits: Tensor, action: Tensor) -> Tensor:
    """Return `log p - log(1 - p)` `[...]` of choices `[...]` with logits `[..., n]`."""
    chosen = action.unsqueeze(-1)
    # masked, not infinite: of a single choice the gradient stays a number
    others = logits.scatter(-1, chosen, MASKED_LOGIT).logsumexp(-1)
    return logits.gather(-1, chosen).squeeze(-1) - others


def _as_int64(number: int) -> int:
    """Return the int64 with the same bits as a uint64: a sum with it wraps around to the right one.

    Only uint64 holds numbers for which there is a difference.
    """
    return number - 2**64 if number >= 2**63 else number


def _from_int64(number: int, dtype: torch.dtype) -> int:
    """Return the number of an environment's dtype that `_as_int64` was given."""
    return number % 2**64 if dtype == torch.uint64 else number
