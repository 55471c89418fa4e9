"""Sequences in which every `is_init` starts from the state that is stored there."""

from collections.abc import Callable
from typing import Literal, NamedTuple, ParamSpec, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from xlstm_rl.memory import Memory
from xlstm_rl.policy.arrays import is_traced
from xlstm_rl.torchrl.state import StateLayout

P = ParamSpec("P")
R = TypeVar("R")

SequenceStates = Literal["ends", "last", "none"]
"""Which states a sequence gives: where trajectories end, after the last step of a row, none."""


def _outside_of_graphs(run: Callable[P, R]) -> Callable[P, R]:
    """Keep `torch.compile` out: what is done depends on the numbers of flags and states."""
    return cast(Callable[P, R], torch.compiler.disable(run))


class Sequences(NamedTuple):
    """Rows `[B, T]` of a replayed or collected batch.

    Args:
        x: inputs `[B, T, ...]`, before the projection.
        stored: the state before each step, `[B, T, S]`.
        is_init: `[B, T]`, true where a trajectory starts. Every row starts at its first step.
    """

    x: Tensor
    stored: Tensor
    is_init: Tensor


class _Segments(NamedTuple):
    """Parts of rows, as positions in the flattened batch: `first` `[N]` and `length` `[N]`."""

    first: Tensor
    length: Tensor


class _Plan(NamedTuple):
    """What is known of rows before they are run.

    Args:
        reset: `[B, T]`, true where a trajectory starts from zeros within its row; None: nowhere.
        split: `[B, T]`, true where one starts from another state; None: nowhere.
        ends: states `[N, S]` at ends within rows; None: not wanted, or `split` gives them.
        ends_at: their positions `[N]` in the flattened batch.
        by_steps: nobody can look at the numbers.
    """

    reset: Tensor | None = None
    split: Tensor | None = None
    ends: Tensor | None = None
    ends_at: Tensor | None = None
    by_steps: bool = False


class SequenceRunner:
    """Runs a memory over rows whose trajectories start from stored states.

    Args:
        memory: the memory.
        project: what stands before it.
        layout: of its state.
        states: which states are wanted.
    """

    def __init__(
        self,
        memory: Memory,
        project: Callable[[Tensor], Tensor],
        layout: StateLayout,
        states: SequenceStates,
    ) -> None:
        self.memory, self.project, self.layout = memory, project, layout
        self.states = states

    def run(self, rows: Sequences) -> tuple[Tensor, Tensor | None]:
        """Return outputs `[B, T, D]`, and states after steps `[B, T, S]`.

        The states are right after the last step of every trajectory (`"ends"`) or of every row
        (`"last"`), and zeros elsewhere; `"none"`: None.
        """
        plan = _Plan()
        if rows.x.shape[1] > 1:
            plan = self._plan(rows)
        if plan.by_steps:
            return self._run_steps(rows)
        if plan.split is not None:
            return self._run_split(rows, plan)
        x = self.project(rows.x)
        tensors = self.layout.unpack(rows.stored[:, 0], x)
        y, tensors = self.memory.forward_tensors(x, tensors, plan.reset)
        if self.states == "none":
            return y, None
        last = self.layout.pack(tensors, rows.stored[:, 0])
        batch, steps = rows.is_init.shape
        at = torch.arange(1, batch + 1, device=last.device) * steps - 1
        return y, _spread(last, at, plan, rows.is_init.shape)

    @_outside_of_graphs
    def _plan(self, rows: Sequences) -> _Plan:
        if _is_batched(rows.stored) or _is_batched(rows.is_init) or rows.is_init.is_meta:
            return _Plan(by_steps=True)
        inside = rows.is_init.clone()
        inside[:, 0] = False
        starts = inside.flatten()
        where = starts.nonzero().squeeze(1)
        if where.numel() == 0:
            return _Plan()
        found = rows.stored.flatten(0, 1).index_select(0, where)
        from_stored = found.abs().amax(-1).ne(0)
        if rows.stored.requires_grad and torch.is_grad_enabled():
            from_stored.fill_(True)  # zeros that are reset would get no gradient
        split = torch.zeros_like(starts).index_copy_(0, where, from_stored)
        split = split.unflatten(0, inside.shape)
        plan = _Plan(inside & ~split, split if bool(from_stored.any()) else None)
        if self.states != "ends" or not self.layout.shapes or bool(from_stored.all()):
            return plan
        first, length = _cut(inside)
        beyond = first + length
        wanted = beyond % inside.shape[1] != 0
        wanted[wanted.clone()] = ~split.flatten()[beyond[wanted]]  # those come with gradients
        with torch.no_grad():
            _, ends, at = self._run_segments(rows, _Segments(first[wanted], length[wanted]), None)
        return plan._replace(ends=ends, ends_at=at)

    @_outside_of_graphs
    def _run_split(self, rows: Sequences, plan: _Plan) -> tuple[Tensor, Tensor | None]:
        """Split at starts from a stored state; those from zeros stay resets within a part."""
        assert plan.split is not None
        y, ends, at = self._run_segments(rows, _cut(plan.split), plan.reset)
        if self.states == "none":
            return y, None
        if self.states == "last":
            is_last = (at + 1) % rows.is_init.shape[1] == 0
            ends, at = ends[is_last], at[is_last]
        return y, _spread(ends, at, plan, rows.is_init.shape)

    def _run_segments(
        self, rows: Sequences, segments: _Segments, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run parts of rows beside each other, without padding.

        A part of length 13 runs as pieces of 8, 4 and 1 steps, each beside the pieces of other
        parts that are as long: a call for each power of two.

        Returns:
            Outputs `[B, T, D]` where the parts are all there is (else of no use), the state at the
            end of each part `[N, S]`, and its position `[N]`.
        """
        first, length = segments
        x, stored = self.project(rows.x).flatten(0, 1), rows.stored.flatten(0, 1)
        flat_reset = None if reset is None else reset.flatten()
        before = stored.index_select(0, first)
        tensors = self.layout.unpack(before, x)
        outputs, positions, begin = [], [], first.clone()
        sizes = _piece_sizes(length.tolist())
        for size in sizes:
            members = (length & size).eq(size).nonzero().squeeze(1)
            index = begin[members, None] + torch.arange(size, device=first.device)
            resets = None if flat_reset is None else flat_reset[index]
            inputs = x.index_select(0, index.flatten()).unflatten(0, index.shape)
            if len(sizes) == 1:
                y, tensors = self.memory.forward_tensors(inputs, tensors, resets)
            else:
                started = tuple(tensor.index_select(0, members) for tensor in tensors)
                y, after = self.memory.forward_tensors(inputs, started, resets)
                tensors = tuple(
                    _put(old, members, new.to(old.dtype))
                    for old, new in zip(tensors, after, strict=True)
                )
            begin[members] += size
            outputs.append(y.flatten(0, 1))
            positions.append(index.flatten())
        y = torch.cat(outputs).index_select(0, torch.cat(positions).argsort())
        if y.shape[0] == rows.is_init.numel():
            y = y.unflatten(0, rows.is_init.shape)
        return y, self.layout.pack(tensors, before), begin - 1

    def _run_steps(self, rows: Sequences) -> tuple[Tensor, Tensor | None]:
        """Do the same step by step, where a transform lets nobody look at the numbers."""
        x, steps = self.project(rows.x), rows.x.shape[1]
        packed = rows.stored[:, 0]
        outputs, after = [], []
        for t in range(steps):
            if t > 0:
                packed = torch.where(rows.is_init[:, t, None], rows.stored[:, t], packed)
            y, tensors = self.memory.step_tensors(x[:, t], self.layout.unpack(packed, x))
            packed = self.layout.pack(tensors, packed)
            outputs.append(y)
            shown = packed
            if t < steps - 1:
                ends = rows.is_init[:, t + 1, None] & (self.states == "ends")
                shown = packed.masked_fill(~ends, 0.0)
            after.append(shown)
        y = torch.stack(outputs, 1)
        return y, None if self.states == "none" else torch.stack(after, 1)


def _spread(states: Tensor, at: Tensor, plan: _Plan, shape: torch.Size) -> Tensor:
    """Return `[B, T, S]` with states `[N, S]` and the plan's at their positions, else zeros."""
    if plan.ends is not None and plan.ends_at is not None:
        states, at = torch.cat((plan.ends, states)), torch.cat((plan.ends_at, at))
    after = _zeros(states, shape.numel())
    after[at] = states
    rows: Tensor = after.unflatten(0, shape)
    return rows


def _zeros(like: Tensor, count: int) -> Tensor:
    """Return zeros `[count, S]` for states `[N, S]`; on a CPU they take memory where written to."""
    if like.device.type != "cpu" or is_traced(like):
        return like.new_zeros(count, like.shape[1])
    # few states are written: torch would touch all of it, which costs more than a small network
    size = count * like.shape[1] * like.element_size()
    return torch.from_numpy(np.zeros(size, np.uint8)).view(like.dtype).view(count, -1)


def _put(rows: Tensor, members: Tensor, new: Tensor) -> Tensor:
    """Return rows `[N, ...]` with those of `members` `[M]` replaced, in place where none looks."""
    if torch.is_grad_enabled() or is_traced(new):
        return rows.index_put((members,), new)
    return rows.index_copy_(0, members, new)


def _piece_sizes(lengths: list[int]) -> list[int]:
    """Return the powers of two that add up to the lengths, the greatest first."""
    if len(set(lengths)) == 1:
        return lengths[:1]
    bits = 0
    for length in lengths:
        bits |= length
    return [1 << k for k in reversed(range(bits.bit_length())) if bits >> k & 1]


def _cut(starts: Tensor) -> _Segments:
    """Return the parts of rows between starts `[B, T]`; every row starts at its first step."""
    starts = starts.clone()
    starts[:, 0] = True
    first = starts.flatten().nonzero().squeeze(1)
    beyond = first.new_full((1,), starts.numel())
    return _Segments(first, torch.cat((first[1:], beyond)) - first)


def _is_batched(tensor: Tensor) -> bool:
    """Whether `torch.func.vmap` runs over a tensor."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False
