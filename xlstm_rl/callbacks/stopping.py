"""Stopping a training that has reached its aim."""

import math
from collections import deque

from xlstm_rl.callbacks.base import Callback
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.config import ConfigError
from xlstm_rl.options.arguments import check_whole, plain_number


class StopAtReturn(Callback):
    """Stops once the mean return of the latest training episodes reaches a value.

    Training samples its actions: see `PeriodicEvaluation(stop_at=...)` for the return of the most
    probable ones.

    Args:
        value: the undiscounted return.
        episodes: how many of the latest episodes; nothing stops before so many have ended.

    Raises:
        ConfigError: `value` is not a finite number, or `episodes` is not an integer >= 1.
    """

    def __init__(self, value: float, episodes: int = 100) -> None:
        self.value = check_return("value", value)
        self.episodes = check_whole("episodes", episodes, 1, ConfigError)
        self._returns: deque[float] = deque(maxlen=self.episodes)

    def on_rollout_end(self, rollout: Rollout) -> None:
        """Remember the episodes that ended."""
        self._returns.extend(rollout.episode_returns)

    def on_update(self, step: int, metrics: dict[str, float]) -> bool:
        """Stop if the mean is reached."""
        full = len(self._returns) == self.episodes
        return not (full and sum(self._returns) / self.episodes >= self.value)


def check_return(name: str, value: object) -> float:
    """Return a finite number.

    Raises:
        ConfigError: it is none.
    """
    number = plain_number(value)
    if number is None or not math.isfinite(number):
        raise ConfigError(f"{name}={value!r}: expected a finite number")
    return float(number)
