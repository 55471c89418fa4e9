"""Policy memories: xLSTM stacks, and what they are compared with, behind the same three calls."""

from typing import TYPE_CHECKING

from xlstm_rl.lazy import lazy_names
from xlstm_rl.memory.config import MEMORIES, MemoryConfig, register_memory

if TYPE_CHECKING:
    from xlstm_rl.memory.base import Leaves, Memory, StateKey, StateTensors
    from xlstm_rl.memory.baselines import GRUMemory, LSTMMemory, MLPMemory
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
    "register_memory",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, __all__, ("base", "stack", "baselines", "reference_weights"))


def make_memory(config: MemoryConfig) -> "Memory":
    """Build the memory that a configuration describes, freshly initialised.

    Args:
        config: Which memory; it was checked when it was made.

    Returns:
        A module whose calls take x [B, T, D] (or [B, D] for `step`), a state and resets.
    """
    memory: Memory = MEMORIES.target(config.kind)(config)
    return memory
