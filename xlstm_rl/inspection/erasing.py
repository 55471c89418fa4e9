"""How much a policy remembers, and for how long: what its return loses when its state is erased."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tensordict import TensorDict, TensorDictBase

from xlstm_rl.bootstrap import bootstrap_interval
from xlstm_rl.evaluation import EvaluationResult, evaluate
from xlstm_rl.evaluation.environments import Environment
from xlstm_rl.inspection.parts import blocks_of
from xlstm_rl.options.arguments import check_whole
from xlstm_rl.policy.actor_critic import MEMORY
from xlstm_rl.policy.policy import Policy

ALL = "whole memory"
"""The name of the part that is everything."""

_MOST_HEADS = 16
"""Of a memory with more heads its blocks are erased, and not its heads."""

Progress = Callable[[int, int], object]
"""Called with how many evaluations are done, and how many there are."""


@dataclass(frozen=True)
class ErasingCurve:
    """The mean return with a part of the state erased: once before a step, or every so many."""

    part: str
    """`whole memory`, a block such as `block 1`, or a head such as `head 1.0`."""

    steps: NDArray[np.int64]
    """Before which it was erased, or in between two times that it was, `[N]`."""

    returns: NDArray[np.float64]
    """Of each episode, `[N, episodes]`."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean returns `[N]`."""
        found: NDArray[np.float64] = self.returns.mean(1)
        return found

    @property
    def interval(self) -> NDArray[np.float64]:
        """Bootstrap intervals (95 %) of the mean returns, `[N, 2]`; of one episode the return."""
        ends = [bootstrap_interval(row) or (row[0], row[0]) for row in self.returns]
        return np.array(ends, np.float64)


@dataclass(frozen=True)
class Erasing:
    """What a policy's return is with its whole state, and with parts of it erased."""

    intact: EvaluationResult
    """Nothing was erased."""

    once: list[ErasingCurve]
    """Erased before one step: the whole memory first, then its parts. Of a memory without state
    there is the first alone, which is flat."""

    every: ErasingCurve | None
    """The whole memory erased before every so many steps; 1: there is no memory. None: there is no
    state."""

    @property
    def without(self) -> float:
        """The mean return without memory."""
        return self.intact.mean if self.every is None else float(self.every.mean[0])


def find_erasing(
    policy: Policy,
    env: Environment = None,
    episodes: int = 50,
    seed: int = 0,
    deterministic: bool = True,
    max_steps: int = 500,
    points: int = 33,
    progress: Progress | None = None,
) -> Erasing:
    """Erase the state before one step of every episode, and return what is left of the return.

    The whole is also erased before every 1, 2, 4, ... steps. All curves and the intact return are
    of the same episodes: environments, seeds and noise are those of `evaluate`, so that a part that
    does not matter has the intact return. Erased is the memory that actions depend on: the state of
    the whole, of each block where there are several, and of each head. The window of a causal
    convolution belongs to the block. An erased state is a fresh one, all zeros.

    Args:
        policy: that acts.
        env: as for `evaluate`.
        episodes: how many for each point.
        seed: of the episodes.
        deterministic: take the most probable action instead of a sample.
        max_steps: cut an episode after so many steps.
        points: before at most so many steps, evenly spaced over the longest intact episode.
        progress: is told how far it is.
    """
    points = check_whole("points", points, 1)
    parts = parts_of(policy)

    def play(
        part: Part, is_due: Callable[[NDArray[np.int64]], NDArray[np.bool_]]
    ) -> EvaluationResult:
        def edit(state: TensorDict, at: NDArray[np.int64]) -> TensorDict:
            rows = np.flatnonzero(is_due(at)).tolist()
            return part.erase(state, rows) if rows else state

        return evaluate(
            policy, env, episodes, seed, deterministic, None, max_steps, edit_state=edit
        )

    intact = play(Part([]), np.zeros_like)
    last = max(intact.lengths)
    steps = np.unique(np.linspace(0, last - 1, min(points, last)).round().astype(np.int64))
    if not parts:
        flat = np.tile(np.array(intact.returns), (len(steps), 1))
        return Erasing(intact, [ErasingCurve(ALL, steps, flat)], None)
    periods = 2 ** np.arange(max(1, math.ceil(math.log2(last))), dtype=np.int64)
    done, total = 1, 1 + len(periods) + len(parts) * len(steps)

    def curve(name: str, numbers: NDArray[np.int64], is_due: _IsDue) -> ErasingCurve:
        nonlocal done
        returns = []
        for number in numbers.tolist():
            if progress is not None:
                progress(done, total)
            returns.append(play(parts[name], partial(is_due, number)).returns)
            done += 1
        return ErasingCurve(name, numbers, np.array(returns))

    every = curve(ALL, periods, lambda period, at: at % period == 0)
    once = [curve(name, steps, lambda step, at: at == step) for name in parts]
    return Erasing(intact, once, every)


_IsDue = Callable[[int, NDArray[np.int64]], NDArray[np.bool_]]


@dataclass(frozen=True)
class Part:
    """Something of a state that can be erased."""

    entries: list[tuple[tuple[str, ...], int | None]]
    """Keys of state tensors, and which head of each; None: all of it."""

    def erase(self, state: TensorDict, rows: list[int]) -> TensorDict:
        """Return a state, batch size `[B]`, in which this part of some rows is zeros."""
        state = state.clone()
        for key, head in self.entries:
            tensor = state.get(key)
            assert not isinstance(tensor, TensorDictBase)
            tensor[(rows,) if head is None else (rows, head)] = 0.0
        return state


def parts_of(policy: Policy) -> dict[str, Part]:
    """Return what can be erased of the state that a policy acts from, by name."""
    memory = policy.network.trunk.memory
    keys = [(key,) if isinstance(key, str) else key for key in memory.state_keys]
    if not keys:
        return {}

    def part(places: Iterable[int], head: int | None = None) -> Part:
        return Part([((MEMORY, *keys[place]), head) for place in places])

    blocks = blocks_of(memory)
    parts = {ALL: part(range(len(keys)))}
    if len(blocks) > 1:
        parts |= {f"block {one.name}": part(one.tensors.values()) for one in blocks}
    cut = [one for one in blocks if one.heads > 1]
    if sum(one.heads for one in cut) <= _MOST_HEADS:
        for block in cut:
            own = [block.tensors[name] for name in sorted(block.by_head)]
            for head, name in enumerate(block.parts()):
                parts[f"head {name}"] = part(own, head)
    return parts
