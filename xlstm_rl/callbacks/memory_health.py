"""Whether a memory remembers: what its output owes to the past, its gates and its state.

Measured from outside, by steps from states that were changed on purpose, so that it holds for
every memory and every backend.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from xlstm_rl.memory import Memory, StateTensors

NEAR_0, NEAR_1 = 0.01, 0.999
"""Forget gates below and above count as near 0 and near 1: gone after a step, kept for 1000."""

_LONGEST = 1e6
_CONVOLUTION = "conv"


@dataclass
class MemoryHealth:
    """What was measured of a memory at one step of some environments."""

    past: float
    """Change of the output without the past, relative to the output. The window of a causal
    convolution, of a few steps, is no past."""

    present: float
    """Change of the output with another environment's input, relative to the output; NaN: the
    inputs are all alike."""

    moved: float
    """Change of the state in the step, relative to the state."""

    state_norm: float
    """Euclidean norm of the state, the mean over environments."""

    near_0: float
    """Share of forget gates below 0.01; NaN: the memory has none that can be seen."""

    near_1: float
    """Share of forget gates above 0.999; likewise."""

    lengths: dict[str, float] = field(default_factory=dict)
    """Steps after which a forget gate leaves 1/e, `-1 / mean(log f)`, by block and head; the mean
    over the gates of a head."""

    gates: dict[str, Tensor] = field(default_factory=dict)
    """The forget gates `[N]` by block."""


@torch.no_grad()
def measure(
    memory: Memory, x: Tensor, tensors: StateTensors, reset: Tensor | None
) -> MemoryHealth | None:
    """Measure a memory at the last step of sequences at which an episode goes on somewhere.

    Args:
        memory: with a state.
        x: its inputs `[B, T, D]`, T >= 2.
        tensors: its state before the first step.
        reset: `[B, T]`, true at the first steps of episodes; None: nowhere.

    Returns:
        None where there is no such step, so that there is no past.
    """
    at = x.shape[1] - 1
    goes_on = None if reset is None else ~reset.cpu().numpy()
    if goes_on is not None:
        steps = goes_on[:, 1:].any(0).nonzero()[0]
        if not len(steps):
            return None
        at = int(steps[-1]) + 1
    _, state = memory.forward_tensors(x[:, :at], tensors, None if reset is None else reset[:, :at])
    last = x[:, at].contiguous()
    if goes_on is not None and not goes_on[:, at].all():
        rows = torch.from_numpy(goes_on[:, at].nonzero()[0]).to(x.device)
        last, state = last[rows], tuple(one[rows] for one in state)
    y, after = memory.step_tensors(last, state)
    cells = [i for i, key in enumerate(memory.state_keys) if _last(key) != _CONVOLUTION]
    fresh = tuple(torch.zeros_like(s) if i in cells else s for i, s in enumerate(state))
    other, swapped = memory.step_tensors(last, fresh)[0], last.roll(1, 0)
    is_alike = _change(swapped, last) < 1e-3
    gates = forget_gates(memory, last, state, after)
    flat = {name: gate.flatten().float().cpu() for name, gate in gates.items()}
    every = np.concatenate([gate.numpy() for gate in flat.values()]) if gates else None
    reached = _flat(after, cells)
    return MemoryHealth(
        past=_change(other, y),
        present=float("nan") if is_alike else _change(memory.step_tensors(swapped, state)[0], y),
        moved=_change(_flat(state, cells), reached),
        state_norm=float(reached.norm(dim=1).mean()),
        near_0=float("nan") if every is None else float((every < NEAR_0).mean()),
        near_1=float("nan") if every is None else float((every > NEAR_1).mean()),
        lengths={
            f"{name}.{head}": length
            for name, gate in gates.items()
            for head, length in enumerate(_lengths(gate))
        },
        gates=flat,
    )


def forget_gates(
    memory: Memory, x: Tensor, state: StateTensors, after: StateTensors
) -> dict[str, Tensor]:
    """Return the forget gates of a step by block, `[B, heads, ...]`; of a GRU and others none.

    A normaliser n, or an LSTM's cell, follows `n = f n' + ...`, so a step from a state with more in
    n' tells f. Where the state is kept at a scale `exp(m)`, f is in units of that.

    Args:
        memory: the memory.
        x: `[B, D]`.
        state: before the step.
        after: after it.
    """
    keys, found = memory.state_keys, {}
    for i, key in enumerate(keys):
        block = key[0] if isinstance(key, tuple) else ""
        is_cell = _last(key) == "n" and (block, "m") in keys
        if not is_cell and key != "c":
            continue
        more = state[i].abs().flatten(1).amax(1).clamp(min=1.0)
        more = more.view(-1, *[1] * (state[i].ndim - 1))
        parts = []
        for layer in range(1 if is_cell else state[i].shape[1]):  # one moves what is above it
            part = slice(None) if is_cell else slice(layer, layer + 1)
            cell = state[i].clone()
            cell[:, part] += more
            stepped = memory.step_tensors(x, (*state[:i], cell, *state[i + 1 :]))[1][i]
            parts.append((stepped - after[i])[:, part] / more)
        gate = torch.cat(parts, 1)
        if is_cell:
            at = keys.index((block, "m"))
            scale = (after[at].double() - state[at].double()).exp().to(gate.dtype)
            gate = gate.mean(-1) if scale.ndim < gate.ndim else gate  # mLSTM: one for its keys
            gate = gate * scale
        # blocks of one memory are numbered, layers of an LSTM are its heads
        found[str(block).removeprefix("block_") or "0"] = gate.clamp(min=0.0)
    return found


def _last(key: str | tuple[str, ...]) -> str:
    return key if isinstance(key, str) else key[-1]


def _flat(tensors: StateTensors, which: list[int]) -> Tensor:
    return torch.cat([tensors[i].flatten(1).double() for i in which], 1)


def _change(one: Tensor, other: Tensor) -> float:
    """Return the norm of the difference, relative to that of the second; 0 where both are 0."""
    difference, norm = float((one - other).double().norm()), float(other.double().norm())
    return 0.0 if difference == 0.0 else difference / max(norm, 1e-30)


def _lengths(gate: Tensor) -> list[float]:
    """Return the mean length of each head's gates `[B, H, ...]`."""
    log = gate.clamp(min=1e-30).log().mean(0)
    log = log.view(log.shape[0], -1)
    found: list[float] = (-1.0 / log.clamp(max=-1.0 / _LONGEST)).mean(1).tolist()
    return found
