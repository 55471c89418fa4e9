"""Refuses NaN and infinities before they reach the statistics or the weights."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from xlstm_rl.errors import TrainingError
from xlstm_rl.normalization import Observation

FinalNumbers = tuple[int, Tensor | slice, Observation]
"""The step after that of final observations, their environments, and what may not be finite."""

_LARGEST = float(torch.finfo(torch.float32).max)


@dataclass
class FiniteCheck:
    """Looks through a rollout, and says where in training a number is that is not finite."""

    steps_done: int
    """Environment steps before the rollout."""

    num_envs: int
    """Environments B."""

    def rewards(self, reward: Tensor) -> None:
        """Look at rewards `[T, B]`."""
        bad = ~_fits(reward)
        if bad.any():
            t, row = (int(i) for i in bad.nonzero()[0])
            raise self._error("reward", row, t)

    def finals(self, finals: list[FinalNumbers]) -> None:
        """Look at final observations."""
        fine = [_fits(one).all() for *_, numbers in finals for one in _parts(numbers)]
        if fine and not bool(torch.stack(fine).all()):  # one look for all of them
            for t, rows, numbers in finals:
                self.observations(numbers, t, rows)

    def observations(
        self, numbers: Observation, first: int, rows: Tensor | slice = slice(None)
    ) -> None:
        """Look at numbers `[T, B, n]` from step `first` on, or `[B, n]` of one step."""
        parts = {"": numbers} if isinstance(numbers, Tensor) else numbers
        for name, values in parts.items():
            bad = ~_fits(values).all(-1)
            if bad.any():
                *step, row = (int(i) for i in bad.nonzero()[0])
                number = int(rows[row]) if isinstance(rows, Tensor) else row
                what = f"observation {name!r}" if name else "observation"
                raise self._error(what, number, first + sum(step))

    def _error(self, what: str, row: int, t: int) -> TrainingError:
        return TrainingError(
            f"the environment returned a non-finite {what} in environment {row} at step "
            f"{self.steps_done + t * self.num_envs}: NaN, infinite values and numbers beyond "
            "float32 cannot be trained on; check the environment's rewards and observations"
        )


def _fits(numbers: Tensor) -> Tensor:
    """Return where numbers are finite as float32: those of a float64 space may be too large."""
    return numbers.abs() <= _LARGEST  # which NaN is not either


def _parts(numbers: Observation) -> Iterable[Tensor]:
    return (numbers,) if isinstance(numbers, Tensor) else numbers.values()
