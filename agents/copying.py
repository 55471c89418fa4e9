"""What `copy.deepcopy` and `pickle` make of an agent."""

import copy
from dataclasses import replace
from typing import Any, SupportsIndex

from typing_extensions import Self

from xlstm_rl.agents.config import CheckpointConfig, TrainConfig
from xlstm_rl.config import config_to_dict
from xlstm_rl.runs.loggers import LoggerConfig
from xlstm_rl.runs.run import Run


class Copying:
    """The part of an agent that is copied: all that it is, but for files that are being written."""

    config: TrainConfig
    _run: Run

    def __copy__(self) -> Self:
        """Return an agent that shares everything with this one."""
        copied = type(self).__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return an agent that trains on as this one would, and writes nothing where it writes.

        Of an agent that has a run folder the copy has none, and no logger: two would write the same
        rows and checkpoints.

        Raises:
            TypeError: a part cannot be copied, such as environments in other processes.
        """
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        if self._run.folder is not None:
            config = _without_files(self.config)
            said = config_to_dict(config)
            plain = copy.deepcopy(self._run.config) | {name: said[name] for name in _FILES}
            memo[id(self.config)] = copy.deepcopy(config, memo)
            memo[id(self._run)] = Run(plain, config.logger, None, config.checkpoint.keep)
        for name, value in vars(self).items():
            try:
                vars(copied)[name] = copy.deepcopy(value, memo)
            except Exception as error:
                raise TypeError(
                    f"a {type(self).__name__} was to be copied, and its {name.lstrip('_')} cannot "
                    f"be ({error}): agent.save(folder) and {type(self).__name__}.load(folder) make "
                    "a second one"
                ) from error
        return copied

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Refuse to be pickled with files open; else leave it to pickle, or to cloudpickle.

        Raises:
            TypeError: it has a run folder; it says what to do.
        """
        if self._run.folder is None:
            return super().__reduce_ex__(protocol)
        name = type(self).__name__
        raise TypeError(
            f"a {name} was to be pickled, and what it has open is of this process alone: "
            f"agent.save(folder) writes it and {name}.load(folder) brings it back; to act, "
            "agent.policy can be pickled"
        )


_FILES = ("run_dir", "logger", "checkpoint")
"""What of a configuration is about files."""


def _without_files(config: TrainConfig) -> TrainConfig:
    # checkpoints that are asked for without a folder would be refused
    checkpoint = replace(config.checkpoint, every_steps=CheckpointConfig.every_steps)
    logger = LoggerConfig(kind="none")
    return replace(config, run_dir=None, logger=logger, checkpoint=checkpoint)
