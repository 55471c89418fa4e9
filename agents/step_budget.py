"""How many rollouts a call of `learn` takes, and how far training has come."""

from collections.abc import Mapping

from xlstm_rl.config import ConfigError
from xlstm_rl.options.arguments import check_whole


class StepBudget:
    """Counts environment steps in whole rollouts, over any number of calls of `learn`.

    Training in several calls takes the same rollouts with the same progress as in one: what a call
    leaves over, less than a rollout, counts in the next.

    Args:
        rollout: environment steps of a rollout, summed over the environments.
        total_steps: steps of the whole training, over which progress runs.
    """

    def __init__(self, rollout: int, total_steps: int) -> None:
        self.rollout = rollout
        self._total = self._whole(total_steps)
        self._left_over = 0
        self._end = self._last = rollout
        self.asked = 0
        """Steps of the whole training that the calls so far asked for."""

    def start(self, done: int, steps: int, horizon: int | None = None) -> int:
        """Return the rollouts of a call that trains for `steps` more after the `done` ones.

        Progress then runs over the horizon; without one, over the whole training, or to the end of
        this call where that is later.

        Raises:
            ConfigError: a number is not an integer >= 1.
        """
        steps = check_whole("total_steps", steps, 1, ConfigError)
        if horizon is not None:
            horizon = check_whole("horizon", horizon, 1, ConfigError)
        self.asked = done + self._left_over + steps
        rollouts = max(1, (steps + self._left_over) // self.rollout)
        self._left_over = max(0, steps + self._left_over - rollouts * self.rollout)
        self._last = done + rollouts * self.rollout
        self._end = max(self._total, self._last) if horizon is None else self._whole(horizon)
        return rollouts

    @property
    def left_over(self) -> int:
        """Steps, fewer than a rollout, that the last call asked for and the next one counts."""
        return self._left_over

    def state(self) -> dict[str, int]:
        """Return what a resumed run needs to know: the end of the last call, and what is owed."""
        return {"last": self._last, "left_over": self._left_over}

    def load_state(self, done: int, state: Mapping[str, int]) -> None:
        """Go on after `done` steps; what a call that was cut short left over is not owed."""
        self._left_over = int(state["left_over"]) if done >= int(state["last"]) else 0

    def progress(self, done: int) -> float:
        """Return the fraction of training that is done, 1 beyond the horizon."""
        return min(1.0, done / self._end)

    def _whole(self, steps: int) -> int:
        return max(1, steps // self.rollout) * self.rollout
