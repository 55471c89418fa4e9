"""What advantages are divided by at least, where they are normalised."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from xlstm_rl.agents.losses import moments_of_all
from xlstm_rl.distributed import ALONE, Ranks


class AdvantageScale:
    """The deviation of the advantages of recent rollouts: the least divisor of the next ones.

    Once a task is solved, what is left of its advantages are errors of the critic. Divided by
    their own deviation they are as large as those that taught the policy, and make it forget.
    So the divisor falls to `decay` of itself with each rollout, and not faster.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.least: Tensor | None = None
        """Scalar; None: nothing was seen yet, or nothing is held on to."""

    def take(self, advantage: Tensor, valid: Tensor | None, ranks: Ranks = ALONE) -> Tensor | None:
        """Take in a rollout's advantages and return the least divisor of its minibatches.

        Args:
            advantage: of any shape.
            valid: of the same shape, the steps that count; None: every step does.
            ranks: the processes whose rollouts count together.
        """
        if not self.decay:
            return None
        deviation = _deviation(advantage, valid, ranks)
        held = torch.zeros_like(deviation) if self.least is None else self.least.to(deviation)
        before = held * self.decay
        # An advantage that is not finite ends the update with an error, not what follows it.
        usable = deviation.isfinite() & (deviation > before)
        self.least = torch.where(usable, deviation, before)
        return self.least

    def state(self) -> float:
        """Return what `load_state` takes."""
        return 0.0 if self.least is None else self.least.item()

    def load_state(self, least: float, device: torch.device) -> None:
        """Go on from what `state` returned."""
        # the next rollout's dtype is not known here; in this one no divisor is rounded
        self.least = torch.tensor(float(least), dtype=torch.float64, device=device)

    @contextmanager
    def kept_on_error(self) -> Iterator[None]:
        """Let a block that raises leave it as it was.

        The rollout of an update that failed taught nothing. An outlier that made its loss infinite
        would stand in the divisor, and later updates would teach nothing either.
        """
        before = self.least
        try:
            yield
        except BaseException:
            self.least = before
            raise


def _deviation(advantage: Tensor, valid: Tensor | None, ranks: Ranks) -> Tensor:
    """Return the standard deviation over the valid steps of all ranks; of fewer than two, 0."""
    (moments,) = moments_of_all([advantage], [valid], ranks)
    if moments is not None:
        return moments.variance().sqrt().to(advantage.dtype)
    counted = advantage if valid is None else advantage[valid]
    return counted.std() if counted.numel() > 1 else advantage.new_zeros(())
