"""Means over the episodes that ended most recently."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from xlstm_rl.collection.collector import Rollout
from xlstm_rl.collection.infos import SUCCESS

_RECENT_EPISODES = 100


class RecentEpisodes:
    """Returns and lengths of up to 100 episodes, the latest of all environments.

    And successes of up to 100 that said in `info["is_success"]` whether they had any.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT_EPISODES)
        self._successes: deque[float] = deque(maxlen=_RECENT_EPISODES)
        self._infos: dict[str, deque[float]] = {}

    def add(self, rollout: Rollout) -> None:
        """Take the episodes that ended in a rollout."""
        self._recent.extend(zip(rollout.episode_returns, rollout.episode_lengths, strict=True))
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
        returns, lengths = zip(*self._recent, strict=True) if self._recent else ((), ())
        found = {
            "episode/return": float(np.mean(returns)) if returns else float("nan"),
            "episode/length": float(np.mean(lengths)) if lengths else float("nan"),
        }
        if self._successes:
            found["episode/success"] = float(np.mean(self._successes))
        for key, values in self._infos.items():
            if values:
                found[f"info/{key}"] = float(np.mean(values))
        return found

    def state(self) -> dict[str, Any]:
        """Return `[return, length]` of each episode, successes, what infos said; oldest first."""
        return {
            "episodes": [list(episode) for episode in self._recent],
            "successes": list(self._successes),
            "infos": {key: list(values) for key, values in self._infos.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the episodes of `state`."""
        self._recent.extend((float(one), int(length)) for one, length in state["episodes"])
        self._successes.extend(float(one) for one in state["successes"])
        for key, values in state["infos"].items():
            said = self._infos.setdefault(str(key), deque(maxlen=_RECENT_EPISODES))
            said.extend(float(one) for one in values)
