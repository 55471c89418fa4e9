"""What the past has to say in a present action: gradient times input, through the sequence form.

Simonyan et al. 2014 (arXiv:1312.6034) and Shrikumar et al. 2017 (arXiv:1704.02685); integrated
gradients are those of Sundararajan et al. 2017 (arXiv:1703.01365).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xlstm_rl.inspection.contributions import contributions, embedding_means, named_inputs
from xlstm_rl.options.arguments import check_whole
from xlstm_rl.policy.policy import Policy
from xlstm_rl.policy.queries import Sequences

_NUMBERS = 1 << 22
"""Numbers of the input that are run at once: 16 MiB in float32."""
_ROWS = 16


@dataclass(frozen=True)
class Saliency:
    """How much each past step weighs in some actions of an episode of T steps."""

    steps: NDArray[np.int64]
    """The steps of the actions, `[N]`, ascending."""

    by_input: dict[str, NDArray[np.float64]]
    """For each input of the network `[N, T]`: the sum over its numbers of what they contribute,
    each taken as positive; zero behind the action."""

    signed: NDArray[np.float64]
    """The sum of all contributions with their signs, `[N, T]`: above 0 where a step speaks for the
    action, or for larger means."""

    blind: tuple[str, ...] = ()
    """Inputs that no gradient reaches, because an encoder of the user's own reads them as integers.
    """

    @property
    def total(self) -> NDArray[np.float64]:
        """The sum over the inputs, `[N, T]`."""
        return sum(self.by_input.values(), np.zeros_like(self.signed))

    @property
    def relative(self) -> NDArray[np.float64]:
        """Each action's weights `[N, T]` relative to its largest before the action, at most 1.

        The present, which often weighs more than all that is past, ends at 1.
        """
        total = self.total
        past = np.where(np.arange(total.shape[1]) < self.steps[:, None], total, 0.0)
        largest = past.max(axis=1, keepdims=True)
        largest = np.where(largest > 0.0, largest, total.max(axis=1, keepdims=True))
        found: NDArray[np.float64] = np.minimum(total / np.where(largest > 0, largest, 1.0), 1.0)
        return found

    def most_salient(self, step: int) -> int:
        """Return the step before one that weighs most in its action.

        Raises:
            ValueError: nothing is before it.
        """
        if step < 1:
            raise ValueError(f"step={step}: expected an integer >= 1, since step 0 has no past")
        return int(self.row(step)[:step].argmax())

    def row(self, step: int) -> NDArray[np.float64]:
        """Return the weights `[T]` of the past in the last of its actions at or before a step."""
        found: NDArray[np.float64] = self.total[np.searchsorted(self.steps, step, "right") - 1]
        return found


def find_saliency(
    policy: Policy, read: Sequences, steps: int | Sequence[int] = 200, points: int = 0
) -> Saliency:
    """Return how much each past step of an episode weighs in its actions.

    The weight of an input x in a decision y is `x dy/dx`, with the gradient through all steps
    between them. y is what `ActionDistribution.decision` returns: the log-odds of the action that
    was taken, or the means of numbers; several add up as a Euclidean norm. x is the observation as
    the environment answers it; of pixels and what stands beside the observation likewise. Of a
    choice it is the row of its embedding less their mean over the episode: what counts is which
    choice it is, not that there is one.

    Args:
        policy: that acts.
        read: one episode, as `Recording.read_by` returns it.
        steps: the steps of the actions, or how many of them, evenly spaced with the last one.
        points: of integrated gradients, along the straight line from zeros to the inputs: their
            sum over all inputs is what y gains on it; 0: the gradient at the inputs alone.

    Raises:
        ValueError: `points` is negative, or a step is none of the episode.
    """
    points = check_whole("points", points, 0)
    means = embedding_means(policy, read)
    length = read.action.shape[1]
    chosen = _chosen(steps, length)
    scales = [(point + 0.5) / points for point in range(points)] or [1.0]
    rows: dict[str, list[Tensor]] = {}
    signed: list[Tensor] = []
    numbers = sum(one[0, 0].numel() for one in named_inputs(read).values())
    for part in _chunks(chosen, numbers):
        found: dict[str, Tensor] = {}
        for scale in scales:
            for name, one in contributions(policy, read, part, scale, means).items():
                found[name] = (
                    found[name] + one / len(scales) if name in found else one / len(scales)
                )
        for name, one in found.items():
            weight = one.double().norm(dim=0).sum(-1)
            rows.setdefault(name, []).append(_as_rows(weight, part, length))
        total = torch.zeros(len(part), part[-1] + 1, dtype=torch.float64)
        for one in found.values():
            total += one.double().sum((0, -1)).cpu()
        signed.append(_as_rows(total, part, length))
    by_input = {name: torch.cat(parts).numpy() for name, parts in rows.items()}
    blind = tuple(name for name in named_inputs(read) if name not in by_input)
    return Saliency(np.array(chosen), by_input, torch.cat(signed).numpy(), blind)


def _as_rows(weights: Tensor, steps: list[int], length: int) -> Tensor:
    """Return weights `[N, end]` as `[N, T]`, zero behind the steps of the actions."""
    past = torch.arange(weights.shape[1]) <= torch.tensor(steps)[:, None]
    return nn.functional.pad(weights.cpu() * past, (0, length - weights.shape[1]))


def _chosen(steps: int | Sequence[int], length: int) -> list[int]:
    if isinstance(steps, int):
        count = min(check_whole("steps", steps, 1), length)
        return sorted({length - 1 - (index * length) // count for index in range(count)})
    chosen = sorted(set(steps))
    if not chosen or chosen[0] < 0 or chosen[-1] >= length:
        raise ValueError(f"steps are {chosen}, expected integers from 0 to {length - 1}")
    return chosen


def _chunks(chosen: list[int], numbers: int) -> Iterator[list[int]]:
    """Cut the steps into groups whose sequences are run side by side, none much longer than it."""
    start = 0
    while start < len(chosen):
        room = max(1, min(_ROWS, _NUMBERS // (numbers * (chosen[start] + 1))))
        yield chosen[start : start + room]
        start += room
