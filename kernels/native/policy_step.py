"""One step of a whole policy in one call of the library: linear layers, blocks and norms in a row.

A `StepChain` is built once for a number of rows. It holds the arguments of every part and the
buffers between them; a step sets the pointers of what changes, its input, output and state, and
calls once. Weights are read where they lie. A chain knows them by the places that hold them, and
takes over another tensor as soon as one stands there.
"""

import ctypes
import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.mlstm.block import MLSTMBlockOptions, MLSTMBlockWeights
from xlstm_rl.kernels.native import mlstm_block, mlstm_block_step, slstm_block
from xlstm_rl.kernels.native.arguments import bytes_for, run, struct
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.slstm.block import SLSTMBlockOptions, SLSTMBlockWeights

ACTIVATIONS = ("none", "tanh", "relu", "silu")
_LINE = 16  # floats of a cache line
_LINEAR, _NORM, _MLSTM, _SLSTM = range(4)

_Linear = struct("linear_arguments", "rows inputs outputs activation", "x weight bias y work")
_Norm = struct("norm_arguments", "rows width", "x weight y")
_Part = struct("part", "kind", "arguments")
_Chain = struct("policy_step_arguments", "count", "parts")


class _Weight(NamedTuple):
    """A parameter by the place that holds it, and the field that takes its pointer."""

    owner: dict[str, Any]
    name: str
    shape: torch.Size
    arguments: Any
    field: str


class _State(NamedTuple):
    """A state tensor's shape, and the fields that take its pointers."""

    shape: tuple[int, ...]
    arguments: Any
    before: str
    after: str


class _Output(NamedTuple):
    """What is handed out: the field that takes its pointer, and its width."""

    arguments: Any
    field: str
    width: int


class StepChain:
    """Parts of a policy that one call runs, for a number of rows.

    Args:
        rows: B.
        inputs: of the first part.
        module: holds all weights.
    """

    def __init__(self, rows: int, inputs: int, module: nn.Module) -> None:
        self.rows = rows
        self._places = {
            id(weight): (one._parameters, name)
            for one in module.modules()
            for name, weight in one._parameters.items()
            if weight is not None
        }
        self._width = self._inputs = inputs
        self._parts: list[Any] = []
        self._kinds: list[int] = []
        self._weights: list[_Weight] = []
        self._states: list[_State] = []
        self._resets: list[Any] = []
        self._outputs: list[_Output] = []
        self._buffers: list[Tensor] = []
        # what reads the input, then each of the outputs; where the next part reads, if not there
        self._readers: list[list[Any]] = [[]]
        self._buffer_to_read: int | None = None
        self._pointers: list[int] = []
        self._lock = threading.Lock()

    def linear(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        """Add a linear layer, weight ``[M, K]``, and its activation."""
        part = _Linear(self.rows, weight.shape[1], weight.shape[0], ACTIVATIONS.index(activation))
        self._hold(part, "weight", weight)
        self._hold(part, "bias", bias)
        part.work = self._buffer(bytes_for("xl_linear_floats", part))
        self._append(_LINEAR, part, weight.shape[0], "y")

    def norm(self, weight: Tensor) -> None:
        """Add a layer norm."""
        part = _Norm(self.rows, weight.shape[0])
        self._hold(part, "weight", weight)
        self._append(_NORM, part, weight.shape[0], "y")

    def mlstm(self, weights: MLSTMBlockWeights, options: MLSTMBlockOptions) -> None:
        """Add an mLSTM block."""
        B, D, inner, H = self.rows, self._width, weights.skip.shape[0], options.num_heads
        S = weights.qkv.shape[1]
        W = 0 if weights.conv is None else weights.conv.shape[1]
        exponential = options.forget_gate == "exponential"
        part = mlstm_block_step.Arguments(B, D, inner, H, W, S, exponential, num_threads())
        for name, weight in weights._asdict().items():
            self._hold(part, name, weight)
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
        part = slstm_block.Forward(*sizes)
        for name, weight in weights._asdict().items():
            self._hold(part, f"w_{name}", weight)
        part.work = self._buffer(-(-slstm_block.work_bytes(sizes, False) // 4))
        shapes = ((B, W - 1, D), *((B, heads, D // heads),) * 4)
        self._carry(part, slstm_block.STATE, shapes, W > 0)
        self._append(_SLSTM, part, D, "out")

    def hand_out(self) -> None:
        """Let what the last part made be an output ``[B, D]``."""
        field = "out" if self._kinds[-1] in (_MLSTM, _SLSTM) else "y"
        self._outputs.append(_Output(self._parts[-1], field, self._width))
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
        self._chain = _Chain(count, ctypes.addressof(self._table))

    def _hold(self, part: Any, field: str, weight: Tensor | None) -> None:
        if weight is not None:
            owner, name = self._places[id(weight)]
            self._weights.append(_Weight(owner, name, weight.shape, part, field))

    def _carry(
        self, part: Any, names: tuple[str, ...], shapes: tuple[Any, ...], window: bool
    ) -> None:
        """Take the state of a block, whose first tensor is that of its convolution, if any."""
        self._resets.append(part)
        for name, shape in list(zip(names, shapes, strict=True))[0 if window else 1 :]:
            self._states.append(_State(shape, part, f"before_{name}", f"after_{name}"))

    def _buffer(self, floats: int) -> int:
        """Return the address of new memory, at the border of a cache line."""
        self._buffers.append(torch.empty(floats + _LINE))
        return -(-self._buffers[-1].data_ptr() // (4 * _LINE)) * 4 * _LINE

    def run(
        self, x: Tensor, reset: Tensor | None, state: tuple[Tensor, ...], inplace: bool
    ) -> tuple[list[Tensor], tuple[Tensor, ...]] | None:
        """Take one step.

        Args:
            x: ``[B, K]``.
            reset: bool ``[B]``.
            state: of all blocks.
            inplace: overwrite it.

        Returns:
            The outputs and the state after; ``None``: a tensor is not what C takes it for, or
            another thread is running this chain.
        """
        x = x.contiguous()
        if not _is_plain(x, (self.rows, self._inputs)) or len(state) != len(self._states):
            return None
        if reset is not None:
            reset = reset.contiguous()  # one flag for all rows has no stride
            if not _is_plain(reset, (self.rows,), torch.bool):
                return None
        for tensor, place in zip(state, self._states, strict=True):
            if not _is_plain(tensor, place.shape):
                return None
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if not self._read_weights():
                return None
            return self._run(x, reset, state, inplace)
        finally:
            self._lock.release()

    def _run(
        self, x: Tensor, reset: Tensor | None, state: tuple[Tensor, ...], inplace: bool
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        after = state if inplace else tuple([torch.empty_like(tensor) for tensor in state])
        outputs = [x.new_empty(self.rows, width) for _, _, width in self._outputs]
        for values, readers in zip((x, *outputs), self._readers, strict=True):
            for part in readers:
                part.x = values.data_ptr()
        flags = None if reset is None else reset.data_ptr()
        for part in self._resets:
            part.reset = flags
        for (_, part, before, behind), old, new in zip(self._states, state, after, strict=True):
            setattr(part, before, old.data_ptr())
            setattr(part, behind, new.data_ptr())
        for (part, field, _), output in zip(self._outputs, outputs, strict=True):
            setattr(part, field, output.data_ptr())
        run("xl_policy_step", self._chain)
        if inplace:
            note_overwritten(after)
        return outputs, after

    def _read_weights(self) -> bool:
        """Take over the weights that stand where they are held; False: one is of another kind."""
        try:
            pointers = [weight.owner[weight.name].data_ptr() for weight in self._weights]
        except (KeyError, AttributeError):
            return False
        if pointers == self._pointers:
            return True
        for weight in self._weights:
            if not _is_plain(weight.owner[weight.name], weight.shape):
                return False
        for weight, address in zip(self._weights, pointers, strict=True):
            setattr(weight.arguments, weight.field, address)
        self._pointers = pointers
        return True


def _is_plain(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> bool:
    return x.shape == shape and x.dtype is dtype and x.is_cpu and x.is_contiguous()
