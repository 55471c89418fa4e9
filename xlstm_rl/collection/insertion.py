"""Final observations inside the sequences that they end.

A final observation belongs behind the last step of an episode that was truncated, and is no step of
the rollout. To value it by a memory that runs over sequences it is inserted there:

    step             0   1   2   3         0   1   2       3
    reset            .   .   x   .    ->   .   .   .   .   x   .
    observation      a0  a1  b0  b1        a0  a1  fin pad b0  b1

The next step of that environment is a reset, so the memory forgets the insertion, and behind the
last step it is as if there had been none. Rows with fewer insertions than others are filled up in
front of the same reset.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlstm_rl.normalization import Observation


@dataclass
class FinalInput:
    """What the network reads of final observations behind step t."""

    t: int
    rows: Tensor | slice
    """The environments that they belong to."""

    x: Observation
    """`[N, ...]`, one for each of them."""


class Insertion:
    """Where final observations go in the sequences of a time segment.

    Args:
        finals: those of the rollout.
        truncated: `[T, B]`, in host memory: only there a final observation counts.
        start: the first step of the segment.
        stop: the step behind its last one.
        device: where the sequences are.
    """

    def __init__(
        self,
        finals: list[FinalInput],
        truncated: NDArray[np.bool_],
        start: int,
        stop: int,
        device: torch.device,
    ) -> None:
        cut, self._found = _truncated_with_final(finals, truncated, start, stop)
        rows = np.flatnonzero(cut.any(1))
        cut = cut[rows]
        before, total = cut.cumsum(1) - cut, cut.sum(1, keepdims=True)
        most = int(total.max(initial=0))
        behind_last = before == total
        steps = np.arange(stop - start)
        place_of_step = steps + before + np.where(behind_last, most - total, 0)
        number, step = cut.nonzero()
        self._order = [(int(s), int(row)) for s, row in zip(step, rows[number], strict=True)]

        def put(array: Any) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        self.rows = put(rows)
        """`[R]`, the environments with insertions."""
        self.others = put(np.flatnonzero(~np.isin(np.arange(truncated.shape[1]), rows)))
        """The other environments."""
        self.at = put(step + start), put(rows[number])
        """Step of the rollout and environment of each insertion."""
        self._steps = put(np.arange(len(rows))[:, None]), put(place_of_step)
        self._places = put(number), put((steps + before + 1)[cut])
        self._length = stop - start + most

    def __len__(self) -> int:
        """Return the number of insertions."""
        return len(self._order)

    def insert(self, x: Observation) -> Observation:
        """Return `[R, S + n, ...]` for the network's input `[B, S, ...]`."""
        parts = [self._found[key] for key in self._order]
        if isinstance(x, Tensor):
            return self._lay(x, [part for part in parts if isinstance(part, Tensor)])
        named = [part for part in parts if isinstance(part, dict)]
        # what only an action depends on, its mask, does not come with final observations
        return {
            name: self._lay(value, [part[name] for part in named])
            for name, value in x.items()
            if name in named[0]
        }

    def _lay(self, x: Tensor, finals: list[Tensor]) -> Tensor:
        longer = self.spread(x)
        longer[self._places] = torch.stack(finals)
        return longer

    def spread(self, x: Tensor) -> Tensor:
        """Return `[B, S, ...]` as `[R, S + n, ...]` with zeros at the insertions."""
        longer = x.new_zeros((len(self.rows), self._length, *x.shape[2:]))
        longer[self._steps] = x[self.rows]
        return longer

    def steps_of(self, longer: Tensor) -> Tensor:
        """Return what `[R, S + n]` holds for the steps of the segment, `[R, S]`."""
        return longer[self._steps]

    def inserted_in(self, longer: Tensor) -> Tensor:
        """Return what `[R, S + n]` holds for the insertions, in the order of `at`."""
        return longer[self._places]


def _truncated_with_final(
    finals: list[FinalInput], truncated: NDArray[np.bool_], start: int, stop: int
) -> tuple[NDArray[np.bool_], dict[tuple[int, int], Observation]]:
    """Return where the segment has final observations, `[B, S]`, and each by step and row."""
    rows = np.arange(truncated.shape[1])
    cut = np.zeros((len(rows), stop - start), dtype=bool)
    found: dict[tuple[int, int], Observation] = {}
    for final in finals:
        if not start <= final.t < stop:
            continue
        which = final.rows
        for place, row in enumerate(
            rows[which if isinstance(which, slice) else which.cpu().numpy()]
        ):
            if truncated[final.t, row]:
                key = final.t - start, int(row)
                cut[row, key[0]] = True
                found[key] = _row(final.x, place)
    return cut, found


def _row(x: Observation, row: int) -> Observation:
    return x[row] if isinstance(x, Tensor) else {name: part[row] for name, part in x.items()}
