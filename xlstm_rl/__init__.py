"""Reinforcement-learning agents whose policy memory is an xLSTM stack.

The public names are imported on first use, so that `import xlstm_rl` stays light and
`xlstm_rl.kernels` runs where only torch is installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlstm_rl.agents import RecurrentA2C, RecurrentPPO
    from xlstm_rl.callbacks import Callback, PeriodicCheckpoint, PeriodicEvaluation, StopAtReturn
    from xlstm_rl.evaluation import evaluate
    from xlstm_rl.memory import MemoryConfig, make_memory
    from xlstm_rl.runs.checkpoint import load_policy
    from xlstm_rl.torchrl import XLSTMModule

_HOMES = {
    "Callback": "xlstm_rl.callbacks",
    "MemoryConfig": "xlstm_rl.memory",
    "PeriodicCheckpoint": "xlstm_rl.callbacks",
    "PeriodicEvaluation": "xlstm_rl.callbacks",
    "RecurrentA2C": "xlstm_rl.agents",
    "RecurrentPPO": "xlstm_rl.agents",
    "StopAtReturn": "xlstm_rl.callbacks",
    "XLSTMModule": "xlstm_rl.torchrl",
    "evaluate": "xlstm_rl.evaluation",
    "load_policy": "xlstm_rl.runs.checkpoint",
    "make_memory": "xlstm_rl.memory",
}

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "MemoryConfig",
    "PeriodicCheckpoint",
    "PeriodicEvaluation",
    "RecurrentA2C",
    "RecurrentPPO",
    "StopAtReturn",
    "XLSTMModule",
    "evaluate",
    "load_policy",
    "make_memory",
]


if not TYPE_CHECKING:  # or every name would pass for one that is there, of any type

    def __getattr__(name: str) -> Any:
        """Import a public name from its home on first use."""
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module 'xlstm_rl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
