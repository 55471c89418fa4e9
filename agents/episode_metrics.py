"""Means over the episodes that ended most recently."""

import math
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from xlstm_rl.collection.collector import Rollout
from xlstm_rl.collection.infos import SUCCESS

_RECENT_EPISODES = 100


class RecentEpisodes:
    """Returns and lengths of up to 100 episodes, the latest of all environments.

    And successes of up to 100 that said in `info["is_success"]` whether they had any.
    """

    def __init__(self) -> None:
        self._returns: deque[float] = deque(maxlen=_RECENT_EPISODES)
        self._lengths: deque[int] = deque(maxlen=_RECENT_EPISODES)
        self._successes: deque[float] = deque(maxlen=_RECENT_EPISODES)
        self._infos: dict[str, deque[float]] = {}

    def add(self, rollout: Rollout) -> None:
        """Take the episodes that ended in a rollout."""
        self._returns.extend(rollout.episode_returns)
        self._lengths.extend(rollout.episode_lengths)
        self._successes.extend(rollout.episode_successes)
        for key, values in rollout.episode_infos.items():
            if key != SUCCESS:
                said = self._infos.setdefault(key, deque(maxlen=_RECENT_EPISODES))
                said.extend(value for value in values if math.isfinite(value))

    def metrics(self) -> dict[str, float]:
        """Return the means; NaN before the first episode's end.

        `episode/success` is there once an episode has said whether it was one, and `info/KEY` once
        one has said it.
        """
        found = {
            "episode/return": _mean(self._returns),
            "episode/length": _mean(self._lengths),
        }
        if self._successes:
            found["episode/success"] = _mean(self._successes)
        for key, values in self._infos.items():
            if values:
                found[f"info/{key}"] = _mean(values)
        return found

    def state(self) -> dict[str, Any]:
        """Return `[return, length]` of each episode, successes, what infos said; oldest first."""
        return {
            "episodes": [list(one) for one in zip(self._returns, self._lengths, strict=True)],
            "successes": list(self._successes),
            "infos": {key: list(values) for key, values in self._infos.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the episodes of `state`."""
        self._returns.extend(float(one) for one, _ in state["episodes"])
        self._lengths.extend(int(length) for _, length in state["episodes"])
        self._successes.extend(float(one) for one in state["successes"])
        for key, values in state["infos"].items():
            said = self._infos.setdefault(str(key), deque(maxlen=_RECENT_EPISODES))
            said.extend(float(one) for one in values)


def _mean(values: Collection[float]) -> float:
    """Return the mean; NaN of nothing. Of a few numbers NumPy's takes several times as long."""
    return float(sum(values) / len(values)) if values else float("nan")
