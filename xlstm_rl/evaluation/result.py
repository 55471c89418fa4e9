"""What an evaluation found."""

from dataclasses import dataclass, field

import numpy as np

from xlstm_rl.bootstrap import bootstrap_interval

MOST_PROBABLE, SAMPLED = "most probable", "sampled"
"""How actions were chosen, in words."""


@dataclass(frozen=True, repr=False)
class EvaluationResult:
    """Returns, lengths and successes of the evaluated episodes, in the order of their numbers."""

    returns: list[float] = field(default_factory=list)
    """Undiscounted sums of raw rewards."""

    lengths: list[int] = field(default_factory=list)
    """Steps."""

    successes: list[float | None] = field(default_factory=list)
    """`info["is_success"]` of the last steps, from 0 to 1; None where an episode had none."""

    deterministic: bool = True
    """Whether the most probable actions were taken, and not samples."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns over the episodes."""
        return float(np.std(self.returns))

    @property
    def mean_length(self) -> float:
        """Mean number of steps."""
        return float(np.mean(self.lengths))

    @property
    def success_rate(self) -> float | None:
        """Mean success of the episodes that say whether they had any; None: none of them does."""
        told = [success for success in self.successes if success is not None]
        return float(np.mean(told)) if told else None

    @property
    def actions(self) -> str:
        """How actions were chosen: `most probable` or `sampled`."""
        return MOST_PROBABLE if self.deterministic else SAMPLED

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Return the bootstrap interval of the mean return; None: there is one episode only.

        Raises:
            ValueError: `confidence` does not lie between 0 and 1.
        """
        return bootstrap_interval(self.returns, confidence)

    def __str__(self) -> str:
        ends, success = self.interval(), self.success_rate
        interval = "" if ends is None else f", 95 % interval [{ends[0]:.2f}, {ends[1]:.2f}]"
        count = f"{len(self.returns)} episode{'s' * (len(self.returns) > 1)}"
        told = "" if success is None else f", success rate {success:.2f}"
        return (
            f"return {self.mean:.2f} ± {self.std:.2f} over {count} with "
            f"{self.actions} actions{interval} (min {min(self.returns):.2f}, max "
            f"{max(self.returns):.2f}), length {self.mean_length:.1f} on average{told}"
        )

    def __repr__(self) -> str:
        return f"<EvaluationResult: {self if self.returns else 'no episodes'}>"
