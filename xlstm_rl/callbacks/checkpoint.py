"""Checkpoints at a rhythm of their own."""

from xlstm_rl.callbacks.base import Callback
from xlstm_rl.callbacks.rhythm import Rhythm
from xlstm_rl.config import ConfigError


class PeriodicCheckpoint(Callback):
    """Writes a checkpoint every so many environment steps, beside `checkpoint.every_steps`.

    The newest `checkpoint.keep` stay on disk.

    Args:
        every_steps: environment steps, summed over the environments.

    Raises:
        ConfigError: `every_steps` is not an integer >= 1, or there is no run folder.
    """

    def __init__(self, every_steps: int) -> None:
        self._rhythm = Rhythm(every_steps)

    def on_training_start(self) -> None:
        """Refuse to train without a folder to write into."""
        if self.agent.run_dir is None:
            raise ConfigError(
                "PeriodicCheckpoint: without a run folder no checkpoint is written; give run_dir, "
                "or a logger, which has one"
            )
        self._rhythm.start(self.agent.steps_done)

    def on_update(self, step: int, metrics: dict[str, float]) -> None:
        """Write one where it is due."""
        if self._rhythm.is_due(step):
            self.agent.checkpoint()
