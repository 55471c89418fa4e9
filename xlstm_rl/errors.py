"""Errors that callers may want to tell apart."""


class CheckpointError(ValueError):
    """A run folder or checkpoint is missing, damaged, or was written by something else."""


class TrainingError(RuntimeError):
    """A training run cannot go on; what it saved before stays as it is."""


class CallbackError(TrainingError):
    """A callback raised while an agent trained; named are the callback, the hook and the step."""


class EnvError(TrainingError):
    """An environment raised, died, or answered what nothing can be done with."""


class NonFiniteLossError(TrainingError):
    """A loss or a gradient became NaN or infinite; the weights were not updated with it."""


class ExportError(ValueError):
    """A policy cannot be written in a format, or the file does not act as the policy does."""
