"""The options of the memories that an xLSTM is compared with."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from xlstm_rl.memory.kinds import MemoryConfig
from xlstm_rl.memory.xlstm_config import ProjFactor
from xlstm_rl.options.fields import Count, Range

Window = Annotated[int, Range("an integer >= 2", lambda x: x >= 2)]
Gating = Literal["residual", "gru"]


@dataclass(frozen=True)
class LayeredConfig(MemoryConfig):
    """A memory of equal layers."""

    num_blocks: Count | None = None
    """Number of layers. None: one."""

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return 1 if self.num_blocks is None else self.num_blocks


@dataclass(frozen=True)
class LSTMConfig(LayeredConfig):
    """An LSTM."""

    kind: Literal["lstm"] = "lstm"
    """The memory, which decides the other options of this section."""


@dataclass(frozen=True)
class GRUConfig(LayeredConfig):
    """A GRU."""

    kind: Literal["gru"] = "gru"
    """The memory, which decides the other options of this section."""


@dataclass(frozen=True)
class MLPConfig(LayeredConfig):
    """An MLP without memory."""

    kind: Literal["mlp"] = "mlp"
    """The memory, which decides the other options of this section."""


@dataclass(frozen=True)
class FrameStackConfig(LayeredConfig):
    """An MLP over the last steps of an episode; those before its beginning are zeros."""

    kind: Literal["framestack"] = "framestack"
    """The memory, which decides the other options of this section."""

    frames: Window = 4
    """How many steps the MLP sees, the present one included."""

    hidden_width: Count | None = None
    """Width of the first layer. None: about as many weights as a block of `mlp` has."""

    @property
    def first_width(self) -> int:
        """Width of the first layer."""
        if self.hidden_width is not None:
            return self.hidden_width
        return max(1, round(6 * self.width / (self.frames + 1)))


@dataclass(frozen=True)
class ResidualConfig(LayeredConfig):
    """A memory of residual blocks, each behind a LayerNorm."""

    final_norm: bool = True
    """Whether a LayerNorm follows the last block."""


@dataclass(frozen=True)
class MinGRUConfig(ResidualConfig):
    """Minimal GRUs: gates that see the input alone, so that a sequence is one parallel scan."""

    kind: Literal["mingru"] = "mingru"
    """The memory, which decides the other options of this section."""

    state_factor: Count = 2
    """Width of the state as a multiple of `width`."""


@dataclass(frozen=True)
class TransformerConfig(ResidualConfig):
    """A causal transformer that sees a window of steps."""

    kind: Literal["transformer"] = "transformer"
    """The memory, which decides the other options of this section."""

    window: Window = 64
    """How many steps each layer sees, the present one included; so many keys and values are the
    state."""

    num_heads: Count = 4
    """Heads of each layer."""

    feedforward_factor: Count = 2
    """Hidden width of the feed-forward as a multiple of `width`."""

    gating: Gating = "residual"
    """How a layer joins what it read: residual: added; gru: by a gate, as in GTrXL."""

    @property
    def head_size(self) -> int:
        """Size of a head: even, and all heads together are at least as wide as the memory."""
        return 2 * math.ceil(self.width / (2 * self.num_heads))


@dataclass(frozen=True)
class Mamba2Config(ResidualConfig):
    """Mamba-2: a selective state space model with one decay for each head."""

    kind: Literal["mamba2"] = "mamba2"
    """The memory, which decides the other options of this section."""

    num_heads: Count = 4
    """Heads of each block."""

    proj_factor: ProjFactor = 2.0
    """Inner width as a multiple of `width`, before it is rounded up to a multiple of the heads."""

    state_size: Count = 32
    """Numbers that the state holds for each channel; N in the paper."""

    conv1d_kernel_size: Window = 4
    """Taps of the causal convolution before the state space."""

    chunk_size: Count = 64
    """Chunk length of a sequence; it changes speed, not results."""

    @property
    def head_size(self) -> int:
        """Size of a head."""
        return math.ceil(self.proj_factor * self.width / self.num_heads - 1e-6)


@dataclass(frozen=True)
class RWKVConfig(ResidualConfig):
    """RWKV-6 (Finch): linear attention with a decay for each channel that the input sets."""

    kind: Literal["rwkv"] = "rwkv"
    """The memory, which decides the other options of this section."""

    num_heads: Count = 4
    """Heads of each block."""

    feedforward_factor: Count = 1
    """Hidden width of the channel mix as a multiple of `width`."""

    lora_rank: Count = 4
    """Rank of the matrices that set how far each input is mixed with the one before, and the
    decay."""

    chunk_size: Count = 16
    """Chunk length of a sequence; it changes speed and memory, not results."""

    @property
    def head_size(self) -> int:
        """Size of a head: all heads together are at least as wide as the memory."""
        return math.ceil(self.width / self.num_heads)
