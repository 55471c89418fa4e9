"""Policy memories: xLSTM stacks, and what they are compared with, behind the same three calls."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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


def make_memory(config: MemoryConfig | Mapping[str, Any]) -> "Memory":
    """Build the memory that a configuration describes, freshly initialised.

    Args:
        config: Which memory: the options of its kind, or a mapping of them, such as
            `{"kind": "gru", "width": 32}`.

    Returns:
        A module whose calls take x [B, T, D] (or [B, D] for `step`), a state and resets.

    Raises:
        ValueError: If the mapping names no options of a memory, or what is given is none.
    """
    if isinstance(config, Mapping):
        config = MemoryConfig(**config)
    if not isinstance(config, MemoryConfig):
        raise ValueError(
            f"make_memory got a {type(config).__name__}, expected a MemoryConfig or a mapping such "
            "as {'pattern': 'ms', 'width': 64}"
        )
    memory: Memory = MEMORIES.target(config.kind)(config)
    return memory
