"""What the critic gets wrong at a step of the rollout in all environments alike."""

import torch
from torch import Tensor

from xlstm_rl.distributed import ALONE, Moments, Ranks


def without_common_error(advantage: Tensor, valid: Tensor | None, ranks: Ranks = ALONE) -> Tensor:
    """Take from each advantage what those of the other environments say of its step.

    Where environments go through their episodes side by side, as they do where all episodes have
    one length, a critic is wrong in all of them at once; where no action matters, that error is
    all that an advantage has. The mean of the others at the same step tells it. It does not depend
    on what was done here: a baseline (Kool et al. 2019, Buy 4 REINFORCE samples, get a baseline for
    free!).

    Of it only the share is taken that is more than chance, as James and Stein shrink a mean: 1 less
    the variance that means of so many numbers have by chance over the one that these have. Where
    environments are at different steps that is near 0.

    Args:
        advantage: `[B, T]`.
        valid: `[B, T]`, the steps that count; None: all.
        ranks: the processes whose environments count together.

    Returns:
        `[B, T]`; unchanged where there are not two environments and two steps to compare.
    """
    counted = torch.ones_like(advantage, dtype=torch.bool) if valid is None else valid
    known = advantage.masked_fill(~counted, 0.0).double()
    n, mean, squares = _of_each_step(known, counted, ranks)
    compared = n > 1
    steps = compared.sum()
    within = squares[compared].sum() / (n - 1)[compared].sum()
    by_chance = within * (1.0 / n[compared]).sum() / steps
    middle = mean[compared].sum() / steps
    between = (mean - middle).square()[compared].sum() / (steps - 1)
    share = (1.0 - by_chance / between).clamp(min=0.0)
    of_others = (n * mean - known) / (n - 1).clamp(min=1)
    usable = counted & compared & (steps > 1) & (between > 0)
    return torch.where(usable, (known - share * of_others).to(advantage.dtype), advantage)


def _of_each_step(known: Tensor, counted: Tensor, ranks: Ranks) -> Moments:
    """Return the moments over all environments of all processes, `[T]`."""
    n = counted.sum(0)
    mean = known.sum(0) / n.clamp(min=1)
    squares = (known - mean).square().where(counted, 0.0).sum(0)
    own = torch.stack((n.to(mean.dtype), mean, squares), -1)
    return Moments.merged(torch.stack(ranks.gathered_tensors(own)))
