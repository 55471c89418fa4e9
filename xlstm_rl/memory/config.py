"""What a memory is made of: the kinds of memory, and a frozen class of options for each."""

from xlstm_rl.memory.kinds import MEMORIES, MemoryConfig, register_memory
from xlstm_rl.memory.rival_configs import (
    FrameStackConfig,
    GRUConfig,
    LayeredConfig,
    LSTMConfig,
    Mamba2Config,
    MinGRUConfig,
    MLPConfig,
    RWKVConfig,
    TransformerConfig,
)
from xlstm_rl.memory.xlstm_config import Activation, Backend, ForgetGate, XLSTMConfig

__all__ = [
    "MEMORIES",
    "Activation",
    "Backend",
    "ForgetGate",
    "FrameStackConfig",
    "GRUConfig",
    "LSTMConfig",
    "LayeredConfig",
    "MLPConfig",
    "Mamba2Config",
    "MemoryConfig",
    "MinGRUConfig",
    "RWKVConfig",
    "TransformerConfig",
    "XLSTMConfig",
    "register_memory",
]

register_memory(XLSTMConfig, "xlstm_rl.memory.stack:XLSTMStack")
register_memory(LSTMConfig, "xlstm_rl.memory.baselines:LSTMMemory")
register_memory(GRUConfig, "xlstm_rl.memory.baselines:GRUMemory")
register_memory(MLPConfig, "xlstm_rl.memory.baselines:MLPMemory")
register_memory(FrameStackConfig, "xlstm_rl.memory.frame_stack:FrameStackMemory")
register_memory(MinGRUConfig, "xlstm_rl.memory.min_gru:MinGRUStack")
register_memory(TransformerConfig, "xlstm_rl.memory.transformer:TransformerStack")
register_memory(Mamba2Config, "xlstm_rl.memory.mamba2:Mamba2Stack")
register_memory(RWKVConfig, "xlstm_rl.memory.rwkv:RWKVStack")
