"""What an evaluation found."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class EvaluationResult:
    """Returns, lengths and successes of the evaluated episodes, in the order of their numbers."""

    returns: list[float] = field(default_factory=list)
    """Undiscounted sums of raw rewards."""

    lengths: list[int] = field(default_factory=list)
    """Steps."""

    successes: list[float | None] = field(default_factory=list)
    """`info["is_success"]` of the last steps, from 0 to 1; None where an episode had none."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns over the episodes."""
        return float(np.std(self.returns))

    @property
    def success_rate(self) -> float | None:
        """Mean success of the episodes that say whether they had any; None: none of them does."""
        told = [success for success in self.successes if success is not None]
        return float(np.mean(told)) if told else None
