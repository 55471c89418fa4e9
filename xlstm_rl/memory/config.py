"""What a memory is made of: one frozen dataclass, refused where it is illegal."""

import math
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, get_args

Kind = Literal["xlstm", "lstm", "gru", "mlp"]
Activation = Literal["gelu", "relu", "relu^2", "sigmoid", "swish", "selu"]
ForgetGate = Literal["sigmoid", "exponential"]
Backend = Literal["auto", "reference", "torch", "triton"]


@dataclass(frozen=True)
class MemoryConfig:
    """A policy memory: which cells, in which order, how wide.

    The defaults of the xLSTM fields are those of the paper (Beck et al. 2024, arXiv:2405.04517,
    appendix A.3). Fields that a kind does not use are ignored by it.

    Raises:
        ValueError: If a value is unknown, out of range, or does not fit another one.
    """

    kind: Kind = "xlstm"
    """The memory: an xLSTM stack, or for comparison an LSTM, a GRU, or an MLP without memory."""

    pattern: str = "m"
    """Order of the blocks, m = mLSTM, s = sLSTM: "m", "s", "ms", "msm", or the paper's "7:1" for
    seven mLSTM blocks, then one sLSTM block. Repeated, and cut, to `num_blocks`."""

    width: int = 64
    """Size D of the vectors that enter and leave the memory, and of the residual stream."""

    num_blocks: int | None = None
    """Number of blocks (layers of an LSTM or GRU). None: once through the pattern."""

    num_heads: int = 4
    """Heads of each block."""

    conv_window: int = 4
    """Taps of the causal convolution before the cell, at least 2; 0: no convolution."""

    expansion: float = 2.0
    """Inner width of an mLSTM block as a multiple of `width`, before rounding."""

    qkv_block_size: int = 4
    """Block size of the block-diagonal query, key and value projections of an mLSTM block."""

    feed_forward_factor: float = 4 / 3
    """Hidden width of the feed-forward after an sLSTM cell as a multiple of `width`, before
    rounding; 0: no feed-forward."""

    feed_forward_activation: Activation = "gelu"
    """Activation of the gate in that feed-forward."""

    round_to: int = 64
    """Inner and feed-forward widths are rounded up to a multiple of this."""

    forget_gate: ForgetGate = "sigmoid"
    """Activation of the forget gate, of mLSTM and sLSTM alike."""

    final_norm: bool = True
    """Whether a LayerNorm follows the last block."""

    bias: bool = False
    """Whether the projections of an mLSTM block have biases."""

    feed_forward_bias: bool = False
    """Whether the feed-forward after an sLSTM cell has biases."""

    slstm_num_heads: int | None = None
    """Heads of the sLSTM blocks, where they differ. None: as `num_heads`."""

    slstm_conv_window: int | None = None
    """Taps of the convolution of the sLSTM blocks, where they differ. None: as `conv_window`."""

    chunk_size: int = 64
    """Chunk length of the chunkwise mLSTM kernel; it changes speed, not results."""

    backend: Backend = "auto"
    """Kernel backend; "auto" picks the fastest that runs on the input's device."""

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, get_args(Kind))
        for name in ("width", "num_heads", "qkv_block_size", "round_to", "chunk_size"):
            _check_integer(name, getattr(self, name), minimum=1)
        for name in ("num_blocks", "slstm_num_heads"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), minimum=1)
        for name in ("conv_window", "slstm_conv_window"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), minimum=0)
                if getattr(self, name) == 1:
                    raise ValueError(
                        f"memory.{name}=1 sees the present step alone; use at least 2 taps, "
                        "or 0 for no convolution"
                    )
        _check_choice("forget_gate", self.forget_gate, get_args(ForgetGate))
        _check_choice("backend", self.backend, get_args(Backend))
        _check_choice("feed_forward_activation", self.feed_forward_activation, get_args(Activation))
        if not 0 < self.expansion < math.inf:
            raise ValueError(
                f"memory.expansion={self.expansion!r} is no width; use a number above 0, e.g. 2.0"
            )
        if not 0 <= self.feed_forward_factor < math.inf:
            raise ValueError(
                f"memory.feed_forward_factor={self.feed_forward_factor!r} is no width; "
                "use a number above 0, e.g. 1.333, or 0 for no feed-forward"
            )
        blocks = _parse_pattern(self.pattern)
        if self.kind == "xlstm":
            self._check_divisors(blocks)

    def _check_divisors(self, blocks: str) -> None:
        """Refuse heads and projection blocks that do not divide the widths they split."""
        if "m" in blocks:
            _check_divides("num_heads", self.num_heads, self.inner_width, self._inner_is())
            _check_divides(
                "qkv_block_size", self.qkv_block_size, self.inner_width, self._inner_is()
            )
        if "s" in blocks:
            name = "num_heads" if self.slstm_num_heads is None else "slstm_num_heads"
            _check_divides(name, getattr(self, name), self.width, f"memory.width={self.width}")

    def _inner_is(self) -> str:
        if self.inner_width == self.width:
            return f"memory.width={self.width}"
        return f"the inner width {self.inner_width} of memory.width={self.width}"

    @property
    def block_types(self) -> str:
        """One letter per block, m or s: the pattern repeated and cut to `num_blocks`."""
        letters = _parse_pattern(self.pattern)
        count = len(letters) if self.num_blocks is None else self.num_blocks
        return (letters * (count // len(letters) + 1))[:count]

    @property
    def num_layers(self) -> int:
        """Number of layers of the memories that have no pattern."""
        return 1 if self.num_blocks is None else self.num_blocks

    @property
    def inner_width(self) -> int:
        """Width inside an mLSTM block."""
        return _round_up(self.expansion * self.width, self.round_to)

    @property
    def feed_forward_width(self) -> int:
        """Hidden width of the feed-forward of an sLSTM block; 0 if there is none."""
        return _round_up(self.feed_forward_factor * self.width, self.round_to)


def _parse_pattern(pattern: str) -> str:
    """Return one round of the pattern in letters: "3:1" is "mmms"."""
    if isinstance(pattern, str):
        if re.fullmatch("[ms]+", pattern):
            return pattern
        ratio = re.fullmatch(r"(\d+):(\d+)", pattern)
        if ratio and int(ratio[1]) + int(ratio[2]) > 0:
            return "m" * int(ratio[1]) + "s" * int(ratio[2])
    hint = ""
    if isinstance(pattern, str):
        lowered = re.sub("[^ms]", "", pattern.lower())
        hint = f"; did you mean {lowered!r}?" if lowered else ""
    raise ValueError(
        f"memory.pattern={pattern!r} is no order of blocks; use the letters m (mLSTM) and "
        f's (sLSTM), e.g. "ms", or a ratio of them, e.g. "7:1"{hint}'
    )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value in choices:
        return
    close = get_close_matches(str(value).lower(), choices, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"memory.{name}={value!r} is unknown; use one of {', '.join(choices)}{hint}")


def _check_integer(name: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"memory.{name}={value!r} must be an integer of at least {minimum}")


def _check_divides(name: str, value: int, whole: int, whole_is: str) -> None:
    if whole % value:
        divisors = [str(d) for d in range(1, min(whole, 64) + 1) if whole % d == 0]
        raise ValueError(
            f"memory.{name}={value} does not divide {whole_is}; use {', '.join(divisors[:6])}..."
        )


def _round_up(size: float, multiple: int) -> int:
    # 1e-6: a factor such as 4/3 times the width may land a rounding error above a multiple.
    return math.ceil(size / multiple - 1e-6) * multiple
