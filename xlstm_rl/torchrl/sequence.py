"""Sequences in which every `is_init` starts from the state that is stored there."""

from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from xlstm_rl.memory import Memory, StateTensors
from xlstm_rl.torchrl.state import StateLayout

P = ParamSpec("P")
R = TypeVar("R")


def _outside_of_graphs(run: Callable[P, R]) -> Callable[P, R]:
    """Keep `torch.compile` out: what is done depends on the numbers of flags and states."""
    return cast(Callable[P, R], torch.compiler.disable(run))


class Sequences(NamedTuple):
    """Rows `[B, T]` of a replayed or collected batch.

    Args:
        x: inputs `[B, T, D]`.
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


class _Starts(NamedTuple):
    """Where trajectories start within rows, `inside`, and the part of it that is not from zeros."""

    inside: Tensor
    stored: Tensor
    any_inside: bool
    any_stored: bool


def run_sequences(
    memory: Memory, layout: StateLayout, rows: Sequences, interior_ends: bool
) -> tuple[Tensor, Tensor]:
    """Run a memory over rows: outputs `[B, T, D]`, and states after steps `[B, T, S]`.

    The states are right after the last step of every trajectory, and zeros elsewhere; with
    `interior_ends` false they are right after the last step of a row alone.
    """
    interior_ends = interior_ends and bool(layout.shapes)
    if _is_batched(rows.stored) or _is_batched(rows.is_init):
        return _run_steps(memory, layout, rows, interior_ends)
    starts = _find_starts(rows) if rows.x.shape[1] > 1 else None
    if starts is None or not starts.any_stored:
        tensors = layout.unpack(rows.stored[:, 0], rows.x)
        reset = starts.inside if starts is not None and starts.any_inside else None
        y, tensors = memory.forward_tensors(rows.x, tensors, reset)
        after = _at_last_steps(layout.pack(tensors, rows.stored[:, 0]), rows.x.shape[1])
        if reset is not None and interior_ends:
            after = _with_interior_ends(memory, layout, rows, reset, after)
        return y, after
    return _run_split(memory, layout, rows, starts, interior_ends)


@_outside_of_graphs
def _find_starts(rows: Sequences) -> _Starts:
    inside = rows.is_init.clone()
    inside[:, 0] = False
    where = inside.nonzero(as_tuple=True)
    from_stored = rows.stored[where].ne(0).any(-1)
    if rows.stored.requires_grad:  # zeros that are reset would get no gradient
        from_stored.fill_(True)
    stored = torch.zeros_like(inside)
    stored[where] = from_stored
    return _Starts(inside, stored, where[0].numel() > 0, bool(from_stored.any()))


@_outside_of_graphs
def _run_split(
    memory: Memory, layout: StateLayout, rows: Sequences, starts: _Starts, interior_ends: bool
) -> tuple[Tensor, Tensor]:
    """Split at starts from a stored state; those from zeros stay resets within a part."""
    resets = starts.inside & ~starts.stored
    segments = _cut(starts.stored)
    y, ends, at = _run_segments(memory, layout, rows, segments, resets)
    batch, steps = rows.is_init.shape
    if not interior_ends:
        is_last = (at + 1) % steps == 0
        ends, at = ends[is_last], at[is_last]
    after = ends.new_zeros(batch * steps, layout.size).index_copy_(0, at, ends)
    after = after.unflatten(0, (batch, steps))
    if interior_ends and bool(resets.any()):
        after = _with_interior_ends(memory, layout, rows, starts.inside, after)
    return y, after


@_outside_of_graphs
def _with_interior_ends(
    memory: Memory, layout: StateLayout, rows: Sequences, inside: Tensor, after: Tensor
) -> Tensor:
    """Fill in the states where a trajectory ends within a row, by a pass without gradients."""
    steps = rows.is_init.shape[1]
    first, length = _cut(inside)
    ends_inside = (first + length) % steps != 0
    segments = _Segments(first[ends_inside], length[ends_inside])
    with torch.no_grad():
        _, ends, at = _run_segments(memory, layout, rows, segments, None)
    return after.flatten(0, 1).index_copy_(0, at, ends).view_as(after)


def _cut(starts: Tensor) -> _Segments:
    """Return the parts of rows between starts `[B, T]`; every row starts at its first step."""
    starts = starts.clone()
    starts[:, 0] = True
    first = starts.flatten().nonzero().squeeze(1)
    beyond = first.new_full((1,), starts.numel())
    return _Segments(first, torch.cat((first[1:], beyond)) - first)


def _run_segments(
    memory: Memory,
    layout: StateLayout,
    rows: Sequences,
    segments: _Segments,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run parts of rows beside each other, the longest to the end, without padding.

    There is a call of the memory for each length among them: all run to the length of the
    shortest, the others from there to that of the next, and so on.

    Returns:
        Outputs `[B, T, D]` where the parts are all there is (else of no use), the state at the
        end of each part `[N, S]`, and its position `[N]`.
    """
    order = segments.length.argsort(descending=True, stable=True)
    first, lengths = segments.first[order], segments.length[order].tolist()
    x, stored = rows.x.flatten(0, 1), rows.stored.flatten(0, 1)
    flat_reset = None if reset is None else reset.flatten()
    tensors = layout.unpack(stored[first], rows.x)
    outputs, positions, ends, at = [], [], [], []
    begin, count = 0, len(lengths)
    while count:
        end = lengths[count - 1]
        index = first[:count, None] + torch.arange(begin, end, device=first.device)
        resets = None if flat_reset is None else flat_reset[index]
        y, tensors = memory.forward_tensors(x[index], tensors, resets)
        outputs.append(y.flatten(0, 1))
        positions.append(index.flatten())
        left = count
        while left and lengths[left - 1] == end:
            left -= 1
        ends.append(layout.pack(tuple(one[left:] for one in tensors), stored[first[left:count]]))
        at.append(index[left:, -1])
        tensors = tuple(one[:left] for one in tensors)
        begin, count = end, left
    y = torch.cat(outputs)[torch.cat(positions).argsort()]
    if y.shape[0] == rows.is_init.numel():
        y = y.unflatten(0, rows.is_init.shape)
    return y, torch.cat(ends), torch.cat(at)


def _at_last_steps(final: Tensor, steps: int) -> Tensor:
    """Return states `[B, S]` at the last of `steps` steps, zeros before: `[B, T, S]`."""
    zeros = final.new_zeros(final.shape[0], steps - 1, final.shape[1])
    return torch.cat((zeros, final.unsqueeze(1)), 1)


def _run_steps(
    memory: Memory, layout: StateLayout, rows: Sequences, interior_ends: bool
) -> tuple[Tensor, Tensor]:
    """Do the same step by step, where a transform lets nobody look at the numbers."""
    steps = rows.x.shape[1]
    packed = rows.stored[:, 0]
    outputs, after = [], []
    for t in range(steps):
        if t > 0:
            packed = torch.where(rows.is_init[:, t, None], rows.stored[:, t], packed)
        tensors: StateTensors = layout.unpack(packed, rows.x)
        y, tensors = memory.step_tensors(rows.x[:, t], tensors)
        packed = layout.pack(tensors, packed)
        outputs.append(y)
        shown = packed
        if t < steps - 1:
            ends = rows.is_init[:, t + 1, None] & interior_ends
            shown = packed.masked_fill(~ends, 0.0)
        after.append(shown)
    return torch.stack(outputs, 1), torch.stack(after, 1)


@_outside_of_graphs
def _is_batched(tensor: Tensor) -> bool:
    """Whether `torch.func.vmap` runs over a tensor."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False
