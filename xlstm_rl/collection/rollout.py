"""What a collector hands over: T steps of B environments."""

from dataclasses import dataclass, field
from typing import Any

from tensordict import TensorDict

from xlstm_rl.memory import StateTensors


@dataclass
class Rollout:
    """T steps of B environments, episode borders inside."""

    data: TensorDict
    """Batch size `[B, T]`: `observation` (normalised, as the network saw it; a TensorDict by the
    leaf's name where the space is a Dict or Tuple), `action` (in the policy's units), `log_prob`,
    `value`, `next_value`, `reward`, `terminated`, `truncated`, `reset`, `valid`."""

    segment_states: list[StateTensors]
    """The memory states, batch first, before the first step of each time segment."""

    raw_observation: Any
    """`[B, T, ...]`, a tensor or a TensorDict, flattened but not normalised: the numbers that the
    running statistics are fed with."""

    episode_returns: list[float] = field(default_factory=list)
    """Sums of raw rewards of the episodes that ended."""

    episode_lengths: list[int] = field(default_factory=list)
    """Their lengths in steps."""

    episode_successes: list[float] = field(default_factory=list)
    """What `info["is_success"]` said at the ends of those episodes that have it."""

    episode_ends: list[tuple[int, int]] = field(default_factory=list)
    """Step of the rollout and environment at which each of them ended."""

    episode_infos: dict[str, list[float]] = field(default_factory=dict)
    """What the info of their last steps said under `is_success` and the keywords that were asked
    for, NaN where it said nothing; a key that nobody said is missing."""

    ranks: int = 1
    """Processes that collected as much as this at the same time, whose episodes stand above too."""

    are_others_valid: bool = True
    """Whether their steps are valid."""

    metrics: dict[str, float] = field(default_factory=dict)
    """What collecting says of itself, for the log."""

    def all_valid(self) -> bool:
        """Return whether no step is an autoreset step, here and in the other processes."""
        return self.are_others_valid and bool(self.data["valid"].all())
