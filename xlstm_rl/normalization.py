"""Running normalisation of observations and rewards."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NormalizationConfig:
    """Which running statistics scale what the agent sees."""

    observation: bool = True
    """Shift and scale observations to mean 0 and standard deviation 1."""

    reward: bool = True
    """Divide rewards by the running standard deviation of the discounted return."""

    clip_observation: float = 10.0
    """Normalised observations are clipped to plus and minus this."""

    clip_reward: float = 10.0
    """Normalised rewards are clipped to plus and minus this."""
