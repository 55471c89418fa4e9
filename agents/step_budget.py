"""How many rollouts a call of `learn` takes, and how far training has come."""

from collections.abc import Mapping

from xlstm_rl.config import ConfigError
from xlstm_rl.options.arguments import check_whole


class StepBudget:
    """Counts environment steps in whole rollouts, over any number of calls of `learn`.

    Training in several calls takes the same rollouts with the same progress as in one: what a call
    leaves over, less than a rollout, counts in the next. A call takes at least one rollout; what
    that is more than it asked for is not paid back.

    Args:
        rollout: environment steps of a rollout, summed over the environments.
        total_steps: steps of the whole training, over which progress runs where no horizon is
            given, or to the end of a call that goes beyond them.
        horizon: of the configuration.
    """

    def __init__(self, rollout: int, total_steps: int, horizon: int | None = None) -> None:
        self.rollout = rollout
        self._total, self._configured = total_steps, horizon
        self._of_call: int | None = None
        self._is_cut_short = False
        self._left_over = 0
        self._end = self._last = rollout
        self.asked = 0
        """Steps of the whole training that the calls so far asked for."""

    def start(self, done: int, steps: int, horizon: int | None = None) -> int:
        """Return the rollouts of a call that trains for `steps` more after the `done` ones.

        Progress then runs over the horizon, that of the configuration if none is given; without
        one, over the whole training, or to the end of this call where that is later.

        Raises:
            ConfigError: a number is not an integer >= 1.
        """
        steps = check_whole("total_steps", steps, 1, ConfigError)
        if horizon is not None:
            horizon = check_whole("horizon", horizon, 1, ConfigError)
        elif not self._is_cut_short:
            self._of_call = None
        self._of_call, self._is_cut_short = horizon or self._of_call, False
        self.asked = done + self._left_over + steps
        rollouts = max(1, (steps + self._left_over) // self.rollout)
        self._left_over = max(0, steps + self._left_over - rollouts * self.rollout)
        self._last = done + rollouts * self.rollout
        given = self._of_call or self._configured
        self._end = self._whole(given or self._total)
        if given is None:
            self._end = max(self._end, self._last)
        return rollouts

    @property
    def end(self) -> int:
        """Steps done at which schedules reach their end, as whoever asked for it said it."""
        return self._of_call or self._configured or max(self._total, self.asked)

    @property
    def left_over(self) -> int:
        """Steps, fewer than a rollout, that the last call asked for and the next one counts."""
        return self._left_over

    def state(self) -> dict[str, int]:
        """Return what a resumed run needs: what is owed, and where schedules end (0: not said)."""
        return {
            "last": self._last,
            "left_over": self._left_over,
            "total": self._total,
            "horizon": self._configured or 0,
            "horizon_of_call": self._of_call or 0,
        }

    def load_state(
        self, done: int, state: Mapping[str, int], said: Mapping[str, int | None]
    ) -> None:
        """Go on after `done` steps; what a call that was cut short left over is not owed.

        Args:
            done: the steps of before.
            state: what `state` returned.
            said: `total_steps` and `horizon` of the saved configuration. Where this one was made
                with others they are asked for, and hold; the saved ones only describe the calls.
        """
        is_cut_short = done < int(state["last"])
        self._left_over = 0 if is_cut_short else int(state["left_over"])
        is_same = self._total == said["total_steps"], self._configured == said["horizon"]
        if is_same[0]:
            # before there was a total in the state, the configuration's horizon was where it ends
            self._total = int(state.get("total", said["horizon"] or self._total))
        if is_same[1]:
            self._configured = int(state.get("horizon", 0)) or None
            self._of_call = int(state.get("horizon_of_call", 0)) or None
            self._is_cut_short = is_cut_short

    def progress(self, done: int) -> float:
        """Return the fraction of training that is done, 1 beyond the horizon."""
        return min(1.0, done / self._end)

    def _whole(self, steps: int) -> int:
        return max(1, steps // self.rollout) * self.rollout
