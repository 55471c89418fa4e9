"""The calls whose launches are compiled: every public operation, forward and backward.

They run on meta tensors, which have shapes and strides but no data. A kernel is compiled anew for
each dtype and each set of tiles, so these are gone through for every device class. What else
changes it (no resets, no state, odd sizes and strides, ones, more than 2^31 elements) are variants:
each is tried for one class, in turn, unless all are asked for, which takes three times as long.
"""

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
HEAD_SIZES = (16, 32, 64, 128, 256)
HUGE: dict[str, Any] = {"B": 2**15, "T": 2**13, "H": 8}


@dataclass(frozen=True)
class Case:
    """A call, and what to name it by."""

    name: str
    run: Callable[[], None]
    variant: bool = False


@dataclass(frozen=True)
class Subject:
    """The cases of an operation, and the name of the module that holds its tiles."""

    cases: Callable[[], Iterator[Case]]
    tiles: str


@dataclass(frozen=True)
class Call:
    """How an operation is called; what differs from the defaults is part of the case's name."""

    B: int = 16
    T: int | None = 256  # None: a single step
    H: int = 4
    reset: bool = True
    state: bool = True
    grad: str = "all"  # "all"; "outputs": no loss on the final state, none to the first; "none"
    dense: bool = True  # or with rows that lie apart, by an odd number of elements
    inplace: bool = False
    option: str = ""  # forget gate or activation
    W: int = 4
    bias: bool = True

    def name(self, dtype: torch.dtype, size: object) -> str:
        """The dtype, the size and what is not as usual."""
        defaults = Call()
        odd = [
            f"{name}={value}" if not isinstance(value, bool) else ("" if value else "no ") + name
            for name, value in vars(self).items()
            if value != getattr(defaults, name) and value is not None
        ]
        kind = "step" if self.T is None else "sequence"
        return " ".join([str(dtype)[6:], kind, str(size), *odd])

    @property
    def lead(self) -> tuple[int, ...]:
        """The axes before those of a head."""
        return (self.B,) if self.T is None else (self.B, self.T)

    def tensor(self, dtype: torch.dtype, *shape: int, state: bool = False) -> Tensor:
        """An input without data."""
        room = shape if self.dense else (*shape[:-1], 2 * shape[-1] + 1)
        x = torch.empty(room, dtype=dtype, device="meta")[..., : shape[-1]]
        return x.requires_grad_(self.grad == "all" or (self.grad == "outputs" and not state))

    def resets(self) -> Tensor | None:
        """Where episodes start, if anywhere."""
        return torch.empty(self.lead, dtype=torch.bool, device="meta") if self.reset else None

    def finish(self, output: Tensor, state: Sequence[Tensor]) -> None:
        """Run the backward pass, if one is wanted."""
        ends = {"all": [output, *state], "outputs": [output], "none": []}[self.grad]
        if ends:
            torch.autograd.backward(ends, [torch.empty_like(x) for x in ends])


ACT = Call(T=None, grad="none", inplace=True)


def _variants(dtype: torch.dtype, option: str) -> Iterator[Call]:
    """What is tried at one size."""
    for T in (256, None):
        yield Call(T=T, grad="outputs")
        yield Call(T=T, grad="none")
        if dtype is F32:
            yield Call(T=T, grad="outputs", reset=False, state=False)
        else:
            yield Call(T=T, option=option)
    if dtype is BF16:
        yield Call(T=1, B=1, H=1)
        yield Call(T=None, B=1, H=1, grad="none", inplace=True)
        yield Call(**HUGE)


def _variant(case: Case, is_one: bool = True) -> Case:
    return dataclasses.replace(case, variant=is_one)


def _mlstm(dtype: torch.dtype, K: int, V: int, call: Call) -> Case:
    def run() -> None:
        ops = importlib.import_module("xlstm_rl.kernels.mlstm.triton.ops")
        B, H, lead = call.B, call.H, call.lead
        q, k = (call.tensor(dtype, *lead, H, K) for _ in "qk")
        v = call.tensor(dtype, *lead, H, V)
        i, f = (call.tensor(dtype, *lead, H) for _ in "if")
        shapes = ((B, H, K, V), (B, H, K), (B, H))
        state = tuple(call.tensor(F32, *shape, state=True) for shape in shapes)
        inputs = (q, k, v, i, f, call.resets(), state if call.state else None)
        gate = call.option or "sigmoid"
        if call.T is None:
            call.finish(*ops.mlstm_step(*inputs, gate, call.inplace))
        else:
            call.finish(*ops.mlstm(*inputs, 64, gate))

    return Case(call.name(dtype, f"K={K} V={V}"), run)


def mlstm() -> Iterator[Case]:
    """Cases of the mLSTM."""
    for dtype in (F32, BF16):
        for size in HEAD_SIZES:
            yield _variant(_mlstm(dtype, size, size, Call()), size == 16)
            yield _variant(_mlstm(dtype, size, size, Call(T=None)), size not in (64, 256))
            yield _variant(_mlstm(dtype, size, size, ACT), size not in (64, 256))
        for call in _variants(dtype, "exponential"):
            yield _variant(_mlstm(dtype, 64, 64, call))
    yield _variant(_mlstm(F32, 80, 80, Call()))
    yield _variant(_mlstm(BF16, 64, 128, Call()))
    yield _variant(_mlstm(BF16, 24, 40, Call(T=65, dense=False)))
    yield _variant(_mlstm(BF16, 24, 40, Call(T=None, dense=False)))
    yield _variant(_mlstm(F16, 64, 64, Call()))
    yield _variant(_mlstm(F16, 64, 64, Call(T=None)))


def _slstm(dtype: torch.dtype, D: int, call: Call, weights: torch.dtype | None = None) -> Case:
    def run() -> None:
        ops = importlib.import_module("xlstm_rl.kernels.slstm.triton.ops")
        B, H = call.B, call.H
        x = call.tensor(dtype, *call.lead, 4, H, D)
        R, b = (call.tensor(weights or dtype, 4, H, D, *last) for last in ((D,), ()))
        state = tuple(call.tensor(F32, B, H, D, state=True) for _ in "hcnm")
        inputs = (x, R, b, call.resets(), state if call.state else None, call.option or "sigmoid")
        if call.T is None:
            call.finish(*ops.slstm_step(*inputs, call.inplace))
        else:
            call.finish(*ops.slstm(*inputs))

    size = f"D={D}" if weights is None else f"D={D} R={str(weights)[6:]}"
    return Case(call.name(dtype, size), run)


def slstm() -> Iterator[Case]:
    """Cases of the sLSTM."""
    for dtype in (F32, BF16):
        for size in HEAD_SIZES:
            yield _slstm(dtype, size, Call())
            yield _variant(_slstm(dtype, size, Call(T=None)))
            yield _slstm(dtype, size, ACT)
        for call in _variants(dtype, "exponential"):
            yield _variant(_slstm(dtype, 64, call))
    yield _variant(_slstm(BF16, 24, Call(T=65, B=3, dense=False)))
    yield _variant(_slstm(BF16, 24, Call(T=None, B=3, dense=False)))
    yield _variant(_slstm(F32, 80, Call()))
    yield _variant(_slstm(BF16, 64, Call(B=512)))
    yield _variant(_slstm(F16, 64, Call()))
    yield _variant(_slstm(F16, 64, Call(T=None)))
    for call in (Call(), ACT):  # as under autocast
        yield _variant(_slstm(BF16, 64, call, F32))


def _conv1d(dtype: torch.dtype, C: int, call: Call) -> Case:
    def run() -> None:
        ops = importlib.import_module("xlstm_rl.kernels.conv1d.triton.ops")
        x = call.tensor(dtype, *call.lead, C)
        weight = call.tensor(dtype, C, call.W)
        bias = call.tensor(dtype, C) if call.bias else None
        state = call.tensor(dtype, call.B, call.W - 1, C, state=True) if call.state else None
        inputs = (x, weight, bias, call.resets(), state, call.option or "silu")
        if call.T is None:
            y, after = ops.causal_conv1d_step(*inputs, call.inplace)
        else:
            y, after = ops.causal_conv1d(*inputs)
        call.finish(y, [after])

    return Case(call.name(dtype, f"C={C}"), run)


def conv1d() -> Iterator[Case]:
    """Cases of the convolution."""
    for dtype in (F32, BF16):
        for size in (16, 64, 128, 512):
            yield _variant(_conv1d(dtype, size, Call()), size != 128)
            yield _variant(_conv1d(dtype, size, Call(T=None)), size != 128)
            yield _variant(_conv1d(dtype, size, ACT), size != 128)
        for call in _variants(dtype, "none"):
            yield _variant(_conv1d(dtype, 128, call))
    yield _variant(_conv1d(F32, 128, Call(option="none", bias=False)))
    yield _variant(_conv1d(F32, 128, Call(W=1)))
    yield _variant(_conv1d(BF16, 130, Call(T=65, W=3, dense=False)))
    yield _variant(_conv1d(BF16, 130, Call(T=None, W=3, dense=False)))
    yield _variant(_conv1d(F16, 128, Call()))
    yield _variant(_conv1d(F16, 128, Call(T=None)))


SUBJECTS = {
    "mlstm": Subject(mlstm, "xlstm_rl.kernels.mlstm.triton.tiles"),
    "slstm": Subject(slstm, "xlstm_rl.kernels.slstm.triton.tiles"),
    "conv1d": Subject(conv1d, "xlstm_rl.kernels.conv1d.triton.tiles"),
}
