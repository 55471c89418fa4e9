"""The blocks and heads of a memory, and where their state lies."""

from dataclasses import dataclass

import torch

from xlstm_rl.memory import Memory
from xlstm_rl.memory.base import StateKey

CONVOLUTION, SCALE = "conv", "m"
"""Names of state tensors that hold the last inputs, and the logarithm of the state's scale."""


@dataclass(frozen=True)
class Block:
    """A block of a memory."""

    name: str
    """Its number; of a memory that does not say its blocks, empty."""

    heads: int
    """Heads with a gate and a part of the state of their own (of an LSTM or a GRU its layers); 0:
    the memory does not say."""

    tensors: dict[str, int]
    """Names of its state tensors, and their places in the state."""

    by_head: frozenset[str]
    """Which of these have the heads as their first axis."""

    def parts(self) -> list[str]:
        """Return names for its heads, or for it where it has none, such as `0.1`."""
        return [f"{self.name}.{head}" for head in range(self.heads)] or [self.name]


@torch.no_grad()
def blocks_of(memory: Memory) -> list[Block]:
    """Return the blocks of a memory; none: it has no state."""
    weight = next(memory.parameters())
    gates = memory.gates(weight.new_zeros(1, 1, memory.width))
    grouped: dict[str, dict[str, int]] = {}
    for place, key in enumerate(memory.state_keys):
        block, name = _split(key)
        grouped.setdefault(block, {})[name] = place
    found = []
    for index, (name, tensors) in enumerate(grouped.items()):
        known = str(index) in gates
        heads = gates[str(index)].forget.shape[2] if known else 0
        by_head = {one for one, place in tensors.items() if memory.state_shapes[place][0] == heads}
        by_head -= {CONVOLUTION}  # its first axis is time, however long
        name = str(index) if known else name.removeprefix("block_")
        found.append(Block(name, heads, tensors, frozenset(by_head)))
    return found


def _split(key: StateKey) -> tuple[str, str]:
    return ("", key) if isinstance(key, str) else (key[0], "/".join(key[1:]))
