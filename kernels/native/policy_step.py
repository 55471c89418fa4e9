"""One step of a whole policy in one call of the library: linear layers, blocks and norms in a row.

A `StepChain` is built once for a number of rows. It holds the arguments of every part and the
buffers between them; a step sets the pointers of what changes, its input, output and state, and
calls once. What acting costs is Python: what is as it was at the step before is not set again.
"""

import ctypes
import operator
import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.mlstm.block import MLSTMBlockOptions, MLSTMBlockWeights
from xlstm_rl.kernels.native import mlstm_block, mlstm_block_step, slstm_block
from xlstm_rl.kernels.native.arguments import bytes_for, empty, run, struct
from xlstm_rl.kernels.native.held import HeldTensors, is_plain
from xlstm_rl.kernels.native.joined import JoinedWeights
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.slstm.block import SLSTMBlockOptions, SLSTMBlockWeights

ACTIVATIONS = ("none", "tanh", "relu", "silu")
_LINE = 16  # floats of a cache line
_NORMALISE, _LINEAR, _NORM, _MLSTM, _SLSTM, _JOINED = range(6)

_Normalise = struct(
    "normalise_arguments",
    "rows width is_wide features",
    "x center scale clip action started reset y",
)
_Linear = struct("linear_arguments", "rows inputs outputs activation", "x weight bias y work")
_Norm = struct("norm_arguments", "rows width", "x weight y")
_Part = struct("part", "kind", "arguments")
_Chain = struct("policy_step_arguments", "count workers", "parts")


class _State(NamedTuple):
    """A state tensor's shape, and the fields that take its pointers."""

    shape: tuple[int, ...]
    arguments: Any
    before: str
    after: str


class _Output(NamedTuple):
    """What is handed out: the field that takes its pointer, its width, a buffer if nobody asks."""

    arguments: Any
    field: str
    width: int
    own: int


class StepChain:
    """Parts of a policy that one call runs, for a number of rows.

    Args:
        rows: B.
        inputs: of the first part.
        module: holds all weights.
        dtype: of the input: what is not float32 has to be normalised first.

    Its memory is laid out for as many threads as torch has now, and it never runs on more.
    """

    def __init__(
        self, rows: int, inputs: int, module: nn.Module, dtype: torch.dtype = torch.float32
    ) -> None:
        self.rows, self.workers = rows, num_threads()
        self._held = HeldTensors(module)
        self._width = inputs
        self._input = (rows, inputs), dtype
        self._parts: list[Any] = []
        self._kinds: list[int] = []
        self._states: list[_State] = []
        self._resets: list[Any] = []
        self._outputs: list[_Output] = []
        self._buffers: list[Tensor] = []
        # what reads the input, then each of the outputs; where the next part reads, if not there
        self._readers: list[list[Any]] = [[]]
        self._buffer_to_read: int | None = None
        # the state that was looked at last, and where it lay
        self._state: tuple[Tensor, ...] = ()
        self._before: list[int] = []
        self._after: list[int] = []
        self._joined: JoinedWeights | None = None
        # what takes the previous action, the tensors that were looked at last, where they lay
        self._beside: tuple[Any, tuple[tuple[int, int], ...]] | None = None
        self._given: tuple[Tensor, ...] = ()
        self._next_to: list[int] = []
        self._lock = threading.Lock()

    def normalise(
        self, center: Tensor | None, scale: Tensor | None, clip: float, features: int = 0
    ) -> None:
        """Add the normaliser of the input, whose statistics have the input's dtype.

        Args:
            center: what goes off each number.
            scale: what each is multiplied with then. `None` for both: the input becomes float32,
                and that is all.
            clip: the largest result.
            features: of the action before, which `run` takes and this puts behind them.
        """
        is_wide = self._input[1] is torch.float64
        part = _Normalise(self.rows, self._width, is_wide, features)
        if features:
            self._beside = part, ((self.rows, features), (self.rows, 1))
            self._resets.append(part)
        bound = torch.tensor([clip], dtype=torch.float64, device="cpu")
        self._buffers.append(bound)
        part.clip = bound.data_ptr()
        self._held.hold(part, "center", center, self._input[1])
        self._held.hold(part, "scale", scale, self._input[1])
        self._append(_NORMALISE, part, self._width + features, "y")

    def joined(self, weights: JoinedWeights) -> None:
        """Let a layer's weights be made of others at each step; the layer is added behind it."""
        self._joined = weights
        self._kinds.append(_JOINED)
        self._parts.append(weights.arguments)

    def linear(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        """Add a linear layer, weight ``[M, K]``, and its activation."""
        part = _Linear(self.rows, weight.shape[1], weight.shape[0], ACTIVATIONS.index(activation))
        self._held.hold(part, "weight", weight)
        self._held.hold(part, "bias", bias)
        part.work = self._buffer(bytes_for("xl_linear_floats", part))
        self._append(_LINEAR, part, weight.shape[0], "y")

    def norm(self, weight: Tensor) -> None:
        """Add a layer norm."""
        part = _Norm(self.rows, weight.shape[0])
        self._held.hold(part, "weight", weight)
        self._append(_NORM, part, weight.shape[0], "y")

    def mlstm(self, weights: MLSTMBlockWeights, options: MLSTMBlockOptions) -> None:
        """Add an mLSTM block."""
        B, D, inner, H = self.rows, self._width, weights.skip.shape[0], options.num_heads
        S = weights.qkv.shape[1]
        W = 0 if weights.conv is None else weights.conv.shape[1]
        exponential = options.forget_gate == "exponential"
        part = mlstm_block_step.Arguments(B, D, inner, H, W, S, exponential, self.workers)
        for name, weight in weights._asdict().items():
            self._held.hold(part, name, weight)
        part.work = self._buffer(-(-bytes_for("xl_mlstm_block_step_bytes", part) // 4))
        K = inner // H
        shapes = ((B, W - 1, inner), (B, H, K, K), (B, H, K), (B, H))
        self._carry(part, mlstm_block.STATE, shapes, W > 0)
        self._append(_MLSTM, part, D, "out")

    def slstm(self, weights: SLSTMBlockWeights, options: SLSTMBlockOptions) -> None:
        """Add an sLSTM block."""
        B, D, heads = self.rows, self._width, options.num_heads
        W = 0 if weights.conv is None else weights.conv.shape[1]
        sizes = slstm_block.sizes_of(
            B, 1, D, weights, heads, options.activation, options.forget_gate
        )
        sizes = (*sizes[:-1], self.workers)
        part = slstm_block.Forward(*sizes)
        for name, weight in weights._asdict().items():
            self._held.hold(part, f"w_{name}", weight)
        part.work = self._buffer(-(-slstm_block.work_bytes(sizes, False) // 4))
        shapes = ((B, W - 1, D), *((B, heads, D // heads),) * 4)
        self._carry(part, slstm_block.STATE, shapes, W > 0)
        self._append(_SLSTM, part, D, "out")

    def hand_out(self) -> None:
        """Let what the last part made be an output ``[B, D]``."""
        field = "out" if self._kinds[-1] in (_MLSTM, _SLSTM) else "y"
        own = getattr(self._parts[-1], field)
        self._outputs.append(_Output(self._parts[-1], field, self._width, own))
        self._readers.append([])
        self._buffer_to_read = None

    def _append(self, kind: int, part: Any, width: int, field: str) -> None:
        if self._buffer_to_read is None:
            self._readers[-1].append(part)
        else:
            part.x = self._buffer_to_read
        self._buffer_to_read = self._buffer(self.rows * width)
        setattr(part, field, self._buffer_to_read)
        self._kinds.append(kind)
        self._parts.append(part)
        self._width = width
        count = len(self._parts)
        self._table = (_Part * count)(
            *(
                _Part(kind, ctypes.addressof(one))
                for kind, one in zip(self._kinds, self._parts, strict=True)
            )
        )
        self._chain = _Chain(count, self.workers, ctypes.addressof(self._table))

    def _carry(
        self, part: Any, names: tuple[str, ...], shapes: tuple[Any, ...], window: bool
    ) -> None:
        """Take the state of a block, whose first tensor is that of its convolution, if any."""
        self._resets.append(part)
        for name, shape in list(zip(names, shapes, strict=True))[0 if window else 1 :]:
            self._states.append(_State(shape, part, f"before_{name}", f"after_{name}"))

    def _buffer(self, floats: int) -> int:
        """Return the address of new memory, at the border of a cache line."""
        self._buffers.append(empty(floats + _LINE))
        return -(-self._buffers[-1].data_ptr() // (4 * _LINE)) * 4 * _LINE

    def run(
        self,
        x: Tensor,
        reset: Tensor | None,
        state: tuple[Tensor, ...],
        inplace: bool,
        last_alone: bool = False,
        beside: tuple[Tensor, ...] = (),
    ) -> tuple[list[Tensor], tuple[Tensor, ...]] | None:
        """Take one step.

        Args:
            x: ``[B, K]``.
            reset: bool ``[B]``.
            state: of all blocks.
            inplace: overwrite it.
            last_alone: hand out the last output alone.
            beside: features of the action before ``[B, F]``, and whether there was one ``[B, 1]``,
                for the normaliser.

        Returns:
            The outputs and the state after; ``None``: a tensor is not what C takes it for, or
            another thread is running this chain.
        """
        x = x.contiguous()
        if not is_plain(x, *self._input):
            return None
        if reset is not None:
            reset = reset.contiguous()  # one flag for all rows has no stride
            if not is_plain(reset, (self.rows,), torch.bool):
                return None
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if self._joined is not None and not self._joined.take():
                return None
            if not (self._held.take() and self._take_beside(beside) and self._take_state(state)):
                return None
            return self._run(x, reset, state, inplace, last_alone)
        finally:
            self._lock.release()

    def _take_beside(self, beside: tuple[Tensor, ...]) -> bool:
        """Set the pointers of what stands beside the input; False: C cannot read it."""
        if self._beside is None:
            return not beside
        part, shapes = self._beside
        pointers = [tensor.data_ptr() for tensor in beside]
        if pointers == self._next_to and all(map(operator.is_, beside, self._given)):
            return True
        if len(beside) != len(shapes) or not all(map(is_plain, beside, shapes)):
            return False
        part.action, part.started = pointers
        self._given, self._next_to = beside, pointers
        return True

    def _take_state(self, state: tuple[Tensor, ...]) -> bool:
        """Set the pointers of the state before; False: C cannot read it."""
        pointers = [tensor.data_ptr() for tensor in state]
        if pointers == self._before and all(map(operator.is_, state, self._state)):
            return True  # an actor goes on from the state that it overwrites
        if len(state) != len(self._states):
            return False
        for tensor, place in zip(state, self._states, strict=True):
            if not is_plain(tensor, place.shape):
                return False
        for (_, part, before, _), address in zip(self._states, pointers, strict=True):
            setattr(part, before, address)
        self._state, self._before = state, pointers
        return True

    def _run(
        self,
        x: Tensor,
        reset: Tensor | None,
        state: tuple[Tensor, ...],
        inplace: bool,
        last_alone: bool,
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        after, behind = state, self._before
        if not inplace:
            after = tuple([torch.empty_like(tensor) for tensor in state])
            behind = [tensor.data_ptr() for tensor in after]
        if behind != self._after:
            for (_, part, _, field), address in zip(self._states, behind, strict=True):
                setattr(part, field, address)
            self._after = behind
        flags = None if reset is None else reset.data_ptr()
        for part in self._resets:
            part.reset = flags
        made, addresses = [], [x.data_ptr()]
        for n, (part, field, width, own) in enumerate(self._outputs, 1):
            if last_alone and n < len(self._outputs):
                address = own
            else:
                made.append(empty(self.rows, width))
                address = made[-1].data_ptr()
            setattr(part, field, address)
            addresses.append(address)
        for address, readers in zip(addresses, self._readers, strict=True):
            for part in readers:
                part.x = address
        run("xl_policy_step", self._chain)
        if inplace:
            note_overwritten(after)
        return made, after
