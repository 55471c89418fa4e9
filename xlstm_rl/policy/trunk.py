"""What a network has of each branch: encoder and memory, how they run, and the head on them."""

from typing import Any, Protocol

from torch import Tensor, nn

from xlstm_rl.memory import Memory, MemoryConfig, StateTensors, make_memory
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.dense import run_dense
from xlstm_rl.policy.encoders.encoder import make_mlp, orthogonal


class Run(Protocol):
    """A way to run a memory, from its state as a flat tuple."""

    def __call__(
        self, memory: Memory, x: Tensor, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        """Return what the memory made, and its state after."""
        ...


def run_sequence(
    memory: Memory, x: Tensor, tensors: StateTensors, reset: Tensor | None
) -> tuple[Tensor, StateTensors]:
    """Run x `[B, T, D]`."""
    return memory.forward_tensors(x, tensors, reset)


def run_step(
    memory: Memory, x: Tensor, tensors: StateTensors, reset: Tensor | None
) -> tuple[Tensor, StateTensors]:
    """Run x `[B, D]`."""
    return memory.step_tensors(x, tensors, reset)


def run_step_in_place(
    memory: Memory, x: Tensor, tensors: StateTensors, reset: Tensor | None
) -> tuple[Tensor, StateTensors]:
    """Run x `[B, D]`, and overwrite the state."""
    return memory.step_tensors(x, tensors, reset, inplace=True)


class Trunk(nn.Module):
    """Encoder and memory: observations in, features `[..., D]` out.

    The encoder is None where another trunk's is read.
    """

    def __init__(self, encoder: nn.Module | None, memory: MemoryConfig) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.memory: Memory = make_memory(memory)


class Head(nn.Module):
    """Hidden layers and a last projection with a small gain, so that it starts near zero."""

    def __init__(self, width: int, outputs: int, policy: PolicyConfig, gain: float) -> None:
        super().__init__()
        sizes = [width, *policy.hidden_widths]
        self.hidden = make_mlp(sizes, policy.activation)
        self.output = orthogonal(nn.Linear(sizes[-1], outputs), gain)

    def forward(self, features: Tensor) -> Tensor:
        """Return `[..., outputs]` for features `[..., D]`."""
        found = run_dense(features, self.hidden, self.output)
        if found is None:
            found = self.output(self.hidden(features))
        return found
