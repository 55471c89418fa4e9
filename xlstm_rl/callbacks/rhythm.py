"""When something is due that happens every so many environment steps."""

from xlstm_rl.config import ConfigError
from xlstm_rl.options.arguments import check_whole


class Rhythm:
    """Says at which updates a multiple of `every_steps` was reached or crossed.

    It depends on the steps alone: a training in several calls, or resumed, keeps it.

    Args:
        every_steps: environment steps.

    Raises:
        ConfigError: it is not an integer >= 1.
    """

    def __init__(self, every_steps: int) -> None:
        self.every_steps = check_whole("every_steps", every_steps, 1, ConfigError)
        self._before = 0

    def start(self, steps_done: int) -> None:
        """Count from here."""
        self._before = steps_done

    def is_due(self, steps_done: int) -> bool:
        """Return whether a multiple lies between the last call, or the start, and here."""
        before, self._before = self._before, steps_done
        return steps_done // self.every_steps > before // self.every_steps
