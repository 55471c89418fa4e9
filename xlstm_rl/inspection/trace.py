"""What a policy says, keeps and holds at each step of an episode, as columns of numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import observation_kind, space_leaves, take
from xlstm_rl.inspection.parts import CONVOLUTION, SCALE, Block, blocks_of
from xlstm_rl.inspection.recording import Recording
from xlstm_rl.memory import Memory, StateTensors
from xlstm_rl.memory.gates import Gates
from xlstm_rl.policy.memory_inputs import memory_inputs
from xlstm_rl.policy.policy import Policy
from xlstm_rl.policy.queries import Sequences

Columns = dict[str, NDArray[np.float64]]
"""Numbers `[T]` by name."""

LONGEST = 1e6
"""Memory lengths end here, as in `MemoryHealth`."""

_MOST = 16
"""Of a leaf with more numbers, the first ones are shown; of more choices, the most probable."""


@torch.no_grad()
def trace(policy: Policy, episode: Recording, read: Sequences) -> Columns:
    """Return the numbers of an episode at each of its T steps.

    - `observation/<leaf>/<index>`: as the environment answered it; of images none.
    - `action/<leaf>/<index>`, `reward`, `return` (the sum so far).
    - `value`, `entropy`, `log_prob` of the action; `probability/<choice>`, or `mean/<index>` and
      `std/<index>`, after the leaf's name where the action space is nested.
    - `<memory>/<block>.<head>/<what>` with input_gate, forget_gate, length, age and norm_<tensor>:
      see `gate_columns` and `norm_columns`.

    Args:
        policy: that acts.
        episode: what happened.
        read: the same, as `Recording.read_by` returns it.
    """
    steps = episode.length
    columns = _leaves("observation", policy.observation_space, episode.observations[:steps])
    columns |= _leaves("action", policy.action_space, episode.actions)
    columns["reward"] = np.array(episode.rewards)
    columns["return"] = np.cumsum(episode.rewards)
    params, value, _ = policy.network(read.observation, read.tensors, read.reset)
    distribution = policy.network.distribution
    log_prob, entropy = distribution.log_prob_and_entropy(params, read.action)
    said = {"value": value, "entropy": entropy, "log_prob": log_prob}
    columns |= {name: _array(one[0]) for name, one in said.items()}
    columns |= _probable({name: _array(one[0]) for name, one in distribution.shown(params).items()})
    start = 0
    for name, memory, x in memory_inputs(policy.network, read.observation):
        before = read.tensors[start : start + len(memory.state_keys)]
        start += len(memory.state_keys)
        blocks = blocks_of(memory)
        gates = memory.gates(x, before)
        for part, one in (*gate_columns(blocks, gates), *norm_columns(blocks, memory, x, before)):
            columns[f"{name}/{part}"] = one
    return columns


def gate_columns(
    blocks: list[Block], gates: dict[str, Gates]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield what the gates of each head say, `[T]`, by names such as `0.1/forget_gate`.

    With i and f the gates of a unit, a head's numbers are the means over its units:

    - input_gate: the geometric mean of i; an exponential gate has no bound.
    - forget_gate: f.
    - length: `-1 / log f`, the steps after which that gate leaves 1/e; at most 1e6.
    - age: how old what is held is: the mean age, in steps, of all that was written since the
      episode began, weighed by how much of it is left. A memory that forgets nothing and
      writes the same at every step holds half its past.

    Args:
        blocks: of the memory.
        gates: over one episode, `[1, T, H, ...]`.
    """
    for block in blocks:
        if block.name not in gates:
            continue
        log_input, log_forget = (
            one[0].double().flatten(2) if one.ndim > 3 else one[0].double().unsqueeze(-1)
            for one in gates[block.name]
        )
        length = -1.0 / log_forget.clamp(max=-1.0 / LONGEST)
        numbers = {
            "input_gate": log_input.mean(-1).exp(),
            "forget_gate": log_forget.exp().mean(-1),
            "length": length.mean(-1),
            "age": _ages(log_input, log_forget).mean(-1),
        }
        for head, part in enumerate(block.parts()):
            for name, one in numbers.items():
                yield f"{part}/{name}", _array(one[:, head])


def _ages(log_input: Tensor, log_forget: Tensor) -> Tensor:
    """Return the mean age `[T, H, D]` of what was written, by what is left of it."""
    held = torch.full_like(log_input[0], -torch.inf)
    age, ages = torch.zeros_like(held), []
    for new, kept in zip(log_input, log_forget, strict=True):
        old = held + kept
        held = torch.logaddexp(old, new)
        age = (old - held).exp() * (age + 1.0)
        ages.append(age)
    return torch.stack(ages)


def norm_columns(
    blocks: list[Block], memory: Memory, x: Tensor, tensors: StateTensors
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield the norm of each state tensor of each head after each step, as `0.1/norm_C`.

    A state that is kept at a scale `exp(m)` is measured without it: C and n as the equations of
    the paper have them, which write `i v k^T` and `i k` into them.

    Args:
        blocks: of the memory.
        memory: that is run.
        x: its inputs `[1, T, D]`.
        tensors: its state before the first step.
    """
    found: dict[str, list[Tensor]] = {}
    for t in range(x.shape[1]):
        _, tensors = memory.step_tensors(x[:, t], tensors)
        for block in blocks:
            scale = tensors[block.tensors[SCALE]] if SCALE in block.tensors else None
            for name, place in block.tensors.items():
                if name in (SCALE, CONVOLUTION):
                    continue
                held = tensors[place][0].double()
                if scale is not None and name != "h":  # an sLSTM's output is at no scale
                    logs = scale[0].double()
                    held = held * logs.reshape(*logs.shape, *[1] * (held.ndim - logs.ndim)).exp()
                is_cut = name in block.by_head
                heads = held.flatten(1) if is_cut else held.reshape(1, -1)
                parts = block.parts() if is_cut or block.heads == 1 else [block.name]
                for part, norm in zip(parts, heads.norm(dim=1), strict=True):
                    found.setdefault(f"{part}/norm_{name}", []).append(norm)
    for name, norms in found.items():
        yield name.removeprefix("/"), _array(torch.stack(norms))


def _leaves(kind: str, space: Any, values: list[Any]) -> Columns:
    """Return the numbers of a space's leaves, `[T]` each."""
    columns: Columns = {}
    for leaf in space_leaves(space):
        if observation_kind(leaf.space) == "image":
            continue
        numbers = np.array([np.asarray(take(one, leaf.path), np.float64).ravel() for one in values])
        name = "/".join(part for part in (kind, leaf.name) if part)
        single = numbers.shape[1] == 1
        for index in range(min(_MOST, numbers.shape[1])):
            columns[name if single else f"{name}/{index}"] = numbers[:, index]
    return columns


def _probable(shown: Columns) -> Columns:
    """Leave out the least probable of many choices."""
    groups: dict[str, list[str]] = {}
    for name in shown:
        groups.setdefault(name.rpartition("/")[0], []).append(name)
    left = {
        name
        for names in groups.values()
        for name in sorted(names, key=lambda one: -float(shown[one].max()))[:_MOST]
    }
    return {name: one for name, one in shown.items() if name in left}


def _array(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return found
