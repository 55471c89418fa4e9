"""Configuration of the normalisation, apart from it because its options need no torch."""

from dataclasses import dataclass

from xlstm_rl.options.fields import Limit
from xlstm_rl.options.section import Section, refuse_unused


@dataclass(frozen=True)
class NormalizationConfig(Section):
    """Which running statistics scale what the agent sees."""

    section = "normalization"

    observation: bool = True
    """Shift and scale Box observations to mean 0 and standard deviation 1."""

    reward: bool = True
    """Divide rewards by the running standard deviation of the discounted return."""

    clip_observation: Limit = 10.0
    """Normalised observations are clipped to plus and minus this."""

    clip_reward: Limit = 10.0
    """Normalised rewards are clipped to plus and minus this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("observation", "reward"):
            if not getattr(self, name):
                owner = f"normalization.{name}=true, but normalization.{name} is false"
                refuse_unused(self, (f"clip_{name}",), owner)
