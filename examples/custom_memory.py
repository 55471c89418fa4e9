"""A memory of your own, in one class: traces that fade at a pace which is learned.

python examples/custom_memory.py

On the command line: `--memory.kind custom_memory:Traces`. docs/develop/adding.md has the rules.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xlstm_rl import RecurrentPPO
from xlstm_rl.memory import Memory, MemoryConfig

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class TracesConfig(MemoryConfig):
    """Options of `Traces`, known to the command line, files and checkpoints."""

    kind: str = "custom_memory:Traces"
    per_channel: int = 4
    """Traces of each channel, each with a pace of its own."""


class Traces(Memory):
    """`h_t = a h_{t-1} + (1 - a) W x_t`, and `x_t + V h_t` comes out. State h [B, D * n]."""

    config_class = TracesConfig

    def __init__(self, config: TracesConfig) -> None:
        size = config.width * config.per_channel
        super().__init__(config.width, {"h": (size,)})
        self.config = config
        self.pace = nn.Parameter(torch.linspace(0.0, 4.0, size))  # keeps 50 % to 98 % a step
        self.write = nn.Linear(config.width, size)
        self.read = nn.Linear(size, config.width)

    def _step(
        self, x: Tensor, tensors: State | None, reset: Tensor | None, inplace: bool
    ) -> tuple[Tensor, State]:
        h = x.new_zeros(x.shape[0], *self.state_shapes[0]) if tensors is None else tensors[0]
        if reset is not None:
            h = h.masked_fill(reset[:, None], 0.0)  # a fresh state is all zeros
        keep = torch.sigmoid(self.pace)
        after = keep * h + (1 - keep) * self.write(x)
        if inplace and tensors is not None:
            after = tensors[0].copy_(after)
        return x + self.read(after), (after,)

    def _sequence(
        self, x: Tensor, tensors: State | None, reset: Tensor | None
    ) -> tuple[Tensor, State]:
        outputs = []
        for t in range(x.shape[1]):  # the same numbers as single steps, by being them
            now = None if reset is None else reset[:, t]
            y, tensors = self._step(x[:, t], tensors, now, inplace=False)
            outputs.append(y)
        return torch.stack(outputs, 1), tensors or ()  # there is a step, so there is a state


if __name__ == "__main__":
    import custom_memory  # under its own name, by which a run folder finds it

    memory = custom_memory.TracesConfig(width=64)
    agent = RecurrentPPO("xlstm_rl/CartPoleNoVel-v1", seed=0, memory=memory)
    agent.learn(total_steps=50_000, progress=True)
    agent.close()
