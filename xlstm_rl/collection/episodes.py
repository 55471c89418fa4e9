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
        self,
        reward: NDArray[Any],
        ended: NDArray[np.bool_],
        invalid: NDArray[np.bool_],
        success: NDArray[Any] | None = None,
    ) -> tuple[list[float], list[int], list[float]]:
        """Return returns, lengths and successes of the episodes that ended, ordered by their ends.

        There are fewer successes where an episode did not say whether it had any.

        Args:
            reward: `[T, B]`, zero at autoreset steps.
            ended: `[T, B]`, true at the last step of an episode.
            invalid: `[T, B]`, true at steps that do not count: autoreset steps, and episodes that
                broke, which are left out.
            success: `[T, B]`, what an episode said of its success at its last step, or NaN.
        """
        successes: list[float] = []
        returns: list[float] = []
        lengths: list[int] = []
        valid, start = ~invalid, 0
        for t in np.flatnonzero(ended.any(1)).tolist():
            self._add(reward[start : t + 1], valid[start : t + 1])
            whole = ended[t] & valid[t]
            returns += self._return[whole].tolist()
            lengths += self._length[whole].tolist()
            if success is not None:
                said = success[t][whole]
                successes += said[np.isfinite(said)].tolist()
            self._return[ended[t]] = 0.0
            self._length[ended[t]] = 0
            start = t + 1
        self._add(reward[start:], valid[start:])
        return returns, lengths, successes

    def state(self) -> dict[str, NDArray[Any]]:
        """Return sums and lengths of the episodes that go on."""
        return {"returns": self._return, "lengths": self._length}

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on with the episodes of another counter."""
        self._return, self._length = state["returns"], state["lengths"]

    def _add(self, reward: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        self._return += reward.sum(0, dtype=np.float64)
        self._length += valid.sum(0)
