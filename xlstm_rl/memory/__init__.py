"""Policy memories: xLSTM stacks, and what they are compared with, behind the same three calls."""

from xlstm_rl.memory.base import Memory, StateKey, StateTensors
from xlstm_rl.memory.baselines import GRUMemory, LSTMMemory, MLPMemory
from xlstm_rl.memory.config import MemoryConfig
from xlstm_rl.memory.reference_weights import from_reference
from xlstm_rl.memory.stack import XLSTMStack

__all__ = [
    "GRUMemory",
    "LSTMMemory",
    "Leaves",
    "MLPMemory",
    "Memory",
    "MemoryConfig",
    "StateKey",
    "StateTensors",
    "XLSTMStack",
    "from_reference",
    "make_memory",
]

Leaves = StateTensors
"""The name of `StateTensors` before version 0.2."""

_MEMORIES: dict[str, type[XLSTMStack | LSTMMemory | GRUMemory | MLPMemory]] = {
    "xlstm": XLSTMStack,
    "lstm": LSTMMemory,
    "gru": GRUMemory,
    "mlp": MLPMemory,
}


def make_memory(config: MemoryConfig) -> Memory:
    """Build the memory that a configuration describes, freshly initialised.

    Args:
        config: Which memory; it was checked when it was made.

    Returns:
        A module whose calls take x [B, T, D] (or [B, D] for `step`), a state and resets.
    """
    return _MEMORIES[config.kind](config)
