"""Returns and lengths of the episodes in rollouts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class EpisodeCounter:
    """Sums the rewards and counts the steps of episodes, also of those that last several rollouts.

    Once per rollout, on the host: what an environment on a GPU answers then comes in one piece.

    Args:
        num_envs: number of environments B.
    """

    def __init__(self, num_envs: int) -> None:
        self._return = np.zeros(num_envs)
        self._length = np.zeros(num_envs, dtype=np.int64)

    def count(
        self, reward: NDArray[Any], ended: NDArray[np.bool_], invalid: NDArray[np.bool_]
    ) -> tuple[list[float], list[int]]:
        """Return the returns and lengths of the episodes that ended, in the order of their ends.

        Args:
            reward: `[T, B]`, zero at autoreset steps.
            ended: `[T, B]`, true at the last step of an episode.
            invalid: `[T, B]`, true at steps that do not count: autoreset steps, and episodes that
                broke, which are left out.
        """
        returns: list[float] = []
        lengths: list[int] = []
        valid, start = ~invalid, 0
        for t in np.flatnonzero(ended.any(1)).tolist():
            self._add(reward[start : t + 1], valid[start : t + 1])
            whole = ended[t] & valid[t]
            returns += self._return[whole].tolist()
            lengths += self._length[whole].tolist()
            self._return[ended[t]] = 0.0
            self._length[ended[t]] = 0
            start = t + 1
        self._add(reward[start:], valid[start:])
        return returns, lengths

    def _add(self, reward: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        self._return += reward.sum(0, dtype=np.float64)
        self._length += valid.sum(0)
