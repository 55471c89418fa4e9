"""The options of an xLSTM stack."""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from xlstm_rl.memory.kinds import MemoryConfig
from xlstm_rl.options.fields import Count, Range
from xlstm_rl.options.section import refuse_unused

Activation = Literal["gelu", "relu", "relu^2", "sigmoid", "swish", "selu"]
ForgetGate = Literal["sigmoid", "exponential"]
InputGate = Literal["exponential", "sigmoid"]
Backend = Literal["auto", "reference", "torch", "native", "triton"]

ProjFactor = Annotated[float, Range("a finite number > 0", lambda x: 0 < x < math.inf)]
ProjFactorOrZero = Annotated[
    float, Range("a finite number >= 0 (0: no feed-forward)", lambda x: 0 <= x < math.inf)
]
KernelSize = Annotated[
    int, Range("an integer >= 2, or 0 for no convolution", lambda x: x == 0 or x >= 2)
]


@dataclass(frozen=True)
class XLSTMConfig(MemoryConfig):
    """An xLSTM stack.

    The defaults are those of the paper (Beck et al. 2024, arXiv:2405.04517, appendix A.3), the
    names those of its code.
    """

    kind: Literal["xlstm"] = "xlstm"
    """The memory: an xLSTM stack, or one to compare it with (`xlstm-rl list memories`), or
    `module:Name` of another. It decides the other options of this section:
    `--memory.kind gru --help` shows those of a GRU."""

    pattern: str = "m"
    """Order of the blocks, m = mLSTM, s = sLSTM: "m", "s", "ms", "msm", or the paper's "7:1" for
    seven mLSTM blocks, then one sLSTM block. Repeated, and cut, to `num_blocks`."""

    width: Count = 64
    """Size D of the vectors that enter and leave the memory, and of the residual stream."""

    num_blocks: Count | None = None
    """Number of blocks. None: once through the pattern."""

    num_heads: Count = 4
    """Heads of each block."""

    conv1d_kernel_size: KernelSize = 4
    """Taps of the causal convolution before the cell, at least 2; 0: no convolution."""

    proj_factor: ProjFactor = 2.0
    """Inner width of an mLSTM block as a multiple of `width`, before rounding."""

    qkv_block_size: Count = 4
    """Block size of the block-diagonal query, key and value projections of an mLSTM block."""

    feedforward_proj_factor: ProjFactorOrZero = 4 / 3
    """Hidden width of the feed-forward after an sLSTM cell as a multiple of `width`, before
    rounding; 0: no feed-forward."""

    feedforward_activation: Activation = "gelu"
    """Activation of the gate in that feed-forward."""

    round_to: Count = 64
    """Inner and feed-forward widths are rounded up to a multiple of this."""

    forget_gate: ForgetGate = "sigmoid"
    """Activation of the forget gate, of mLSTM and sLSTM alike."""

    input_gate: InputGate = "exponential"
    """Activation of the input gate, of mLSTM and sLSTM alike. sigmoid, as an LSTM has it, shows
    what exponential gating is worth, and runs in torch."""

    normalizer: bool = True
    """Whether the cells divide what they read out by what they took in. false shows what that is
    worth, and runs in torch: an mLSTM is gated linear attention then, an sLSTM reads out as an LSTM
    does."""

    final_norm: bool = True
    """Whether a LayerNorm follows the last block."""

    bias: bool = False
    """Whether the projections of an mLSTM block have biases."""

    feedforward_bias: bool = False
    """Whether the feed-forward after an sLSTM cell has biases."""

    slstm_num_heads: Count | None = None
    """Heads of the sLSTM blocks, where they differ. None: as `num_heads`."""

    slstm_conv1d_kernel_size: KernelSize | None = None
    """Taps of the convolution of the sLSTM blocks, where they differ. None: as
    `conv1d_kernel_size`."""

    chunk_size: Count = 64
    """Chunk length of the chunkwise mLSTM kernel; it changes speed, not results."""

    backend: Backend = "auto"
    """Kernel backend; "auto" picks the fastest that runs on the input's device."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_unread()
        self._check_ablation()
        blocks = self.block_types
        if "m" in blocks:
            inner = f"the inner width {self.inner_width} of memory.width={self.width}"
            if self.inner_width == self.width:
                inner = f"memory.width={self.width}"
            for name in ("num_heads", "qkv_block_size"):
                _check_divides(name, getattr(self, name), self.inner_width, inner)
        if "s" in blocks:
            name = "num_heads" if self.slstm_num_heads is None else "slstm_num_heads"
            _check_divides(name, getattr(self, name), self.width, f"memory.width={self.width}")

    def _refuse_unread(self) -> None:
        """Refuse options that no block of this stack reads."""
        blocks, has = self.block_types, f"memory.pattern={self.pattern}"
        if set(blocks) != set(_parse_pattern(self.pattern)):
            has += f" cut to memory.num_blocks={self.num_blocks}"
        narrow = "memory.feedforward_proj_factor is 0"
        if "s" not in blocks:
            refuse_unused(self, _OF_SLSTM_BLOCKS, f"sLSTM blocks, but {has} has none")
        elif self.feedforward_proj_factor == 0:
            names = ("feedforward_activation", "feedforward_bias")
            refuse_unused(self, names, f"the feed-forward, but {narrow}")
        if "m" in blocks:
            return
        owner = f"mLSTM blocks, but {has} has none"
        refuse_unused(self, _OF_MLSTM_BLOCKS, owner)
        for name in ("num_heads", "conv1d_kernel_size"):
            if getattr(self, f"slstm_{name}") is not None:
                refuse_unused(self, (name,), f"{owner} and memory.slstm_{name} is set")
        if self.feedforward_proj_factor == 0:
            refuse_unused(self, ("round_to",), f"{owner} and {narrow}")

    def _check_ablation(self) -> None:
        """Refuse what does not go with a cell that a part is taken away from."""
        if not self.normalizer and self.forget_gate == "exponential":
            raise ValueError(
                "memory.normalizer=false with memory.forget_gate=exponential: without a normaliser "
                "such a memory grows without bound; use memory.forget_gate=sigmoid"
            )
        taken = "memory.normalizer=false" if not self.normalizer else "memory.input_gate=sigmoid"
        is_ablated = not self.normalizer or self.input_gate == "sigmoid"
        if is_ablated and self.backend in ("native", "triton"):
            raise ValueError(
                f"memory.backend={self.backend} with {taken}: only torch runs this cell; use "
                "memory.backend=auto"
            )

    @property
    def block_types(self) -> str:
        """One letter per block, m or s: the pattern repeated and cut to `num_blocks`."""
        letters = _parse_pattern(self.pattern)
        count = len(letters) if self.num_blocks is None else self.num_blocks
        return (letters * (count // len(letters) + 1))[:count]

    @property
    def inner_width(self) -> int:
        """Width inside an mLSTM block."""
        return _round_up(self.proj_factor * self.width, self.round_to)

    @property
    def feedforward_width(self) -> int:
        """Hidden width of the feed-forward of an sLSTM block; 0 if there is none."""
        return _round_up(self.feedforward_proj_factor * self.width, self.round_to)


_OF_MLSTM_BLOCKS = ("proj_factor", "qkv_block_size", "bias", "chunk_size")
_OF_SLSTM_BLOCKS = (
    *("feedforward_proj_factor", "feedforward_activation", "feedforward_bias"),
    *("slstm_num_heads", "slstm_conv1d_kernel_size"),
)


def _parse_pattern(pattern: str) -> str:
    """Return one round of the pattern in letters: "3:1" is "mmms"."""
    if re.fullmatch("[ms]+", pattern):
        return pattern
    ratio = re.fullmatch(r"(\d+):(\d+)", pattern)
    if ratio and int(ratio[1]) + int(ratio[2]) > 0:
        return "m" * int(ratio[1]) + "s" * int(ratio[2])
    lowered = re.sub("[^ms]", "", pattern.lower())
    raise ValueError(
        f"memory.pattern={pattern!r}: expected the letters m (mLSTM) and s (sLSTM), e.g. 'ms', or "
        "a ratio of them, e.g. '7:1'" + (f"; did you mean {lowered!r}?" if lowered else "")
    )


def _check_divides(name: str, value: int, whole: int, whole_is: str) -> None:
    if whole % value:
        divisors = [str(d) for d in range(1, min(whole, 64) + 1) if whole % d == 0]
        raise ValueError(
            f"memory.{name}={value} does not divide {whole_is}; use {', '.join(divisors[:6])}..."
        )


def _round_up(size: float, multiple: int) -> int:
    # 1e-6: a factor such as 4/3 times the width may land a rounding error above a multiple.
    return math.ceil(size / multiple - 1e-6) * multiple
