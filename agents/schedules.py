"""Schedules: how step size, clip range and entropy bonus change over a training."""

import math
from collections.abc import Callable
from typing import TypeAlias

from xlstm_rl.agents.base_config import AlgorithmConfig
from xlstm_rl.config import ConfigError
from xlstm_rl.options.arguments import plain_number
from xlstm_rl.options.functions import find_named

Schedule: TypeAlias = Callable[[float], float]
"""From progress, 0 to 1, to the factor that a value is multiplied with."""


def make_schedule(option: str, word: str, end: float, warmup: float = 0.0) -> Schedule:
    """Return the schedule that an option names.

    Args:
        option: its path, for errors.
        word: `constant`, `linear`, `cosine`, or the name of a function of one's own.
        end: the factor at the end of `linear` and `cosine`.
        warmup: the share of training in which the factor rises to the schedule's start, which then
            runs over the rest.

    Raises:
        ConfigError: a function of one's own cannot be found.
    """
    known: dict[str, Schedule] = {
        "constant": lambda progress: 1.0,
        "linear": lambda progress: 1.0 + (end - 1.0) * progress,
        "cosine": lambda progress: end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * progress)),
    }
    schedule = known.get(word) or _own(option, word)

    def factor(progress: float) -> float:
        progress = min(progress, 1.0)
        if progress < warmup:
            return schedule(0.0) * progress / warmup
        return schedule((progress - warmup) / (1.0 - warmup) if warmup < 1.0 else 1.0)

    return factor


class Schedules:
    """The values of an algorithm's scheduled options as training goes on.

    Args:
        config: of the algorithm; what it lists in `scheduled` has an end, a schedule and perhaps a
            warm-up.

    Raises:
        ConfigError: a function of one's own cannot be found.
    """

    def __init__(self, config: AlgorithmConfig) -> None:
        self._start = {name: getattr(config, name) for name in config.scheduled}
        self._factors = {
            name: make_schedule(
                f"agent.{name}_schedule",
                getattr(config, f"{name}_schedule"),
                getattr(config, f"{name}_end"),
                getattr(config, f"{name}_warmup", 0.0),
            )
            for name in config.scheduled
        }

    def at(self, progress: float) -> dict[str, float]:
        """Return the values at a progress from 0 to 1."""
        factors = self._factors.items()
        return {name: self._start[name] * factor(progress) for name, factor in factors}


def _own(option: str, word: str) -> Schedule:
    try:
        function: Schedule = find_named(word)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None

    def checked(progress: float) -> float:
        number = plain_number(function(progress))
        if number is None or not math.isfinite(number) or number < 0.0:
            raise ConfigError(
                f"{option}={word} returned {number!r} at progress {progress:.3g}, expected a "
                "number >= 0: the factor at a progress from 0 to 1"
            )
        return float(number)

    return checked
