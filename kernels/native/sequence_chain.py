"""Whole sequences through parts of a network, and back, without a graph of torch's.

A `SequenceChain` is built once for B sequences of T steps. It holds the arguments of every call and
the buffers between them, those of the backward too; a pass sets the pointers of what changes. In
torch's graph each call is a node, which looks at all of its weights again: with calls of a
millisecond Python was a sixth of a minibatch's time (measured).
"""

import ctypes
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xlstm_rl.kernels.mlstm.block import MLSTMBlockOptions, MLSTMBlockWeights
from xlstm_rl.kernels.native import dense, mlstm_block, recurrent, slstm_block
from xlstm_rl.kernels.native.arguments import bytes_for, empty, run, struct
from xlstm_rl.kernels.native.held import HeldTensors, NotCoveredError, is_plain
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.native.program import Call
from xlstm_rl.kernels.native.workspace import ALIGNMENT, aligned, allocate, own_scratch
from xlstm_rl.kernels.recurrent.reference import Weights
from xlstm_rl.kernels.slstm.block import SLSTMBlockOptions, SLSTMBlockWeights

_Norm = struct("norm_arguments", "R D workers", "x weight y moments dy dx dweight work")


class _Field(NamedTuple):
    """Where a pointer stands: in the arguments of the forward, of the backward, or in both."""

    arguments: tuple[Any, ...]
    name: str

    def point(self, address: int | None) -> None:
        for one in self.arguments:
            setattr(one, self.name, address)


class _Part(NamedTuple):
    """A call, and the call back."""

    forward: Call
    backward: Call
    x: _Field
    y: _Field
    dy: _Field
    dx: _Field


class _State(NamedTuple):
    """What reads a tensor of the state."""

    tensor: int
    """Which one."""
    shape: tuple[int, ...]
    field: _Field
    offset: int
    """Where its own numbers begin, in bytes."""


class _Gradient(NamedTuple):
    """A weight's gradient."""

    arguments: Any
    name: str


class SequenceChain:
    """Parts in a row, each on what the one before made.

    Args:
        B: sequences.
        T: their steps.
        inputs: size of the first part's input.
        module: holds all weights.
        wants_dx: whether there is a gradient of the input.

    Its memory is laid out for as many threads as there are now, and it never runs on more.
    """

    def __init__(self, B: int, T: int, inputs: int, module: nn.Module, wants_dx: bool) -> None:
        self.B, self.T, self.workers = B, T, num_threads()
        self.wants_dx = wants_dx
        self.weights: list[Tensor] = []
        """What has a gradient, in the order of `backward`."""
        self._inputs = self._width = inputs
        self._held = HeldTensors(module)
        self._parts: list[_Part] = []
        self._states: list[_State] = []
        self._resets: list[_Field] = []
        self._grads: list[_Gradient] = []
        self._work: list[_Field] = []
        self.work_bytes = 0
        """What all calls work in, one after the other."""
        self._buffers: list[Tensor] = []
        self._dx: Tensor | None = None  # of the input
        self._kept: list[Tensor] = []  # gradients that the next call may overwrite
        self._pointed: list[Tensor] = []  # gradients that the arguments point to
        # what the calls point to: alive until the backward is done
        self._given: tuple[Any, ...] = ()

    def layers(self, layers: Sequence[dense.Layer]) -> None:
        """Add linear layers with their activations, at least one."""
        rows, found = self.B * self.T, (dense.LayerArguments * len(layers))()
        width = self._width
        for n, (weight, bias, activation) in enumerate(layers):
            one = found[n]
            shape = (weight.shape[0], width)
            _demand(weight.shape == shape and (bias is None or bias.shape == shape[:1]))
            _demand(activation in dense.NUMBERS)
            one.inputs, one.outputs = width, weight.shape[0]
            one.activation = dense.NUMBERS[activation]
            self._hold((one,), "weight", weight, one, "dweight")
            self._hold((one,), "bias", bias, one, "dbias")
            width = weight.shape[0]
            if n + 1 < len(layers):
                one.y = self._buffer(4 * rows * width)
        part = dense.Arguments(rows, len(layers), self.workers)
        part.layers = ctypes.addressof(found)
        both = (part,)
        self._work_in(_Field(both, "work"), bytes_for("xl_dense_forward_bytes", part))
        self._work_in(_Field(both, "work"), bytes_for("xl_dense_backward_bytes", part))
        self._append("xl_dense", both, (found[len(layers) - 1],), "y", "dy", width)

    def norm(self, weight: Tensor) -> None:
        """Add a layer norm."""
        _demand(weight.shape == (self._width,))
        part = _Norm(self.B * self.T, self._width, self.workers)
        both = (part,)
        self._hold(both, "weight", weight, part, "dweight")
        part.moments = self._buffer(8 * self.B * self.T)
        self._work_in(_Field(both, "work"), bytes_for("xl_norm_backward_bytes", part))
        self._append("xl_norm", both, both, "y", "dy", self._width)

    def mlstm(self, weights: MLSTMBlockWeights, options: MLSTMBlockOptions) -> None:
        """Add an mLSTM block."""
        x, heads = self._like_input(), options.num_heads
        _demand(mlstm_block.covers(x, None, None, weights, heads) and not options.is_ablated)
        B, D, inner, H = self.B, self._width, weights.skip.shape[0], heads
        W = 0 if weights.conv is None else weights.conv.shape[1]
        sizes = (B, self.T, D, inner, H, W, weights.qkv.shape[1])
        exponential = options.forget_gate == "exponential"
        part = mlstm_block.Arguments(*sizes, exponential, self.workers)
        both = (part,)
        for name, weight in weights._asdict().items():
            self._hold(both, name, weight, part, f"d{name}")
        K = inner // H
        shapes = ((B, W - 1, inner), (B, H, K, K), (B, H, K), (B, H))
        self._carry(both, mlstm_block.STATE, shapes, W > 0)
        part.saved = self._buffer(bytes_for("xl_mlstm_block_saved_bytes", part))
        for name in ("forward", "backward"):
            self._work_in(_Field(both, "work"), bytes_for(f"xl_mlstm_block_{name}_bytes", part))
        self._append("xl_mlstm_block", both, both, "out", "dout", D)

    def slstm(self, weights: SLSTMBlockWeights, options: SLSTMBlockOptions) -> None:
        """Add an sLSTM block."""
        x, heads = self._like_input(), options.num_heads
        _demand(slstm_block.covers(x, None, None, weights, heads) and not options.is_ablated)
        B, D = self.B, self._width
        sizes = slstm_block.sizes_of(
            *(B, self.T, D, weights, heads, options.activation, options.forget_gate)
        )
        W, F = sizes[4:6]
        both = slstm_block.Forward(*sizes), slstm_block.Backward(*sizes)
        for name, weight in weights._asdict().items():
            self._hold(both, f"w_{name}", weight, both[1], f"dw_{name}")
        shapes = ((B, W - 1, D), *((B, heads, D // heads),) * 4)
        self._carry(both, slstm_block.STATE, shapes, W > 0)
        saved = self._buffer(4 * slstm_block.saved_size(B, self.T, D, heads, W, F))
        _Field(both, "saved").point(saved)
        self._work_in(_Field(both[:1], "work"), slstm_block.work_bytes(sizes, True))
        size = slstm_block.work_bytes(sizes, True, True)
        self._work_in(_Field(both[1:], "backward_work"), size)
        self._append("xl_slstm_block", both, both, "out", "dout", D)

    def recurrent(self, weights: Weights, layer: int, num_layers: int, num_states: int) -> None:
        """Add a layer of an LSTM (2 states) or a GRU (1), whose states are `[B, layers, H]`."""
        B, H = self.B, weights[1].shape[1]
        x, states = self._like_input(), (empty(B, H),) * num_states
        _demand(recurrent.covers(x, None, states, weights))
        sizes = (B, self.T, self._width, H, num_states == 1, self.workers, num_layers * H)
        both = recurrent.Forward(*sizes), recurrent.Backward(*sizes)
        for name, weight in zip(("w_ih", "w_hh", "b_ih", "b_hh"), weights, strict=True):
            self._hold(both, name, weight, both[1], f"d{name}")
        for name in ("h", "c")[:num_states]:
            number = ("h", "c").index(name)  # one tensor holds all layers
            shape, field = (B, num_layers, H), _Field(both, f"{name}0")
            self._states.append(_State(number, shape, field, 4 * layer * H))
            _Field(both, f"{name}T").point(self._buffer(4 * B * num_layers * H))
        self._resets.append(_Field(both, "reset"))
        _Field(both, "saved").point(self._buffer(recurrent.bytes_of("saved_bytes", sizes)))
        self._work_in(_Field(both[:1], "work"), recurrent.bytes_of("work_bytes", sizes))
        size = recurrent.bytes_of("backward_work_bytes", sizes)
        self._work_in(_Field(both[1:], "backward_work"), size)
        self._append("xl_recurrent", both, both, "y", "dy", H)

    def _like_input(self) -> Tensor:
        return empty(self.B, self.T, self._width)

    def _hold(
        self, arguments: tuple[Any, ...], field: str, weight: Tensor | None, back: Any, dfield: str
    ) -> None:
        """Keep the pointer of a weight, and make a place for that of its gradient."""
        if weight is None:
            return
        for one in arguments:
            self._held.hold(one, field, weight)
        self._grads.append(_Gradient(back, dfield))
        self.weights.append(weight)

    def _carry(
        self, both: tuple[Any, ...], names: tuple[str, ...], shapes: tuple[Any, ...], window: bool
    ) -> None:
        """Take the state of a block, whose first tensor is that of its convolution, if any."""
        self._resets.append(_Field(both, "reset"))
        for name, shape in list(zip(names, shapes, strict=True))[0 if window else 1 :]:
            place = _State(len(self._states), shape, _Field(both, f"before_{name}"), 0)
            self._states.append(place)
            bytes_ = 4 * math.prod(shape)
            _Field(both, f"after_{name}").point(self._buffer(bytes_))
            _Field(both[-1:], f"dbefore_{name}").point(self._buffer(bytes_))

    def _append(
        self, name: str, both: tuple[Any, ...], last: tuple[Any, ...], y: str, dy: str, width: int
    ) -> None:
        """Add a part: its arguments, those that have its output, and the fields' names."""
        rows = self.B * self.T
        part = _Part(
            Call(f"{name}_forward", both[0]),
            Call(f"{name}_backward", both[-1]),
            _Field(both, "x"),
            _Field(last, y),
            _Field(both[-1:], dy),
            _Field(both[-1:], "dx"),
        )
        if self._parts:  # the output of the one before is read here, and its gradient made
            before, bytes_ = self._parts[-1], 4 * rows * self._width
            for fields in ((before.y, part.x), (before.dy, part.dx)):
                address = self._buffer(bytes_)
                for field in fields:
                    field.point(address)
        elif self.wants_dx or name != "xl_dense":
            self._dx = self._like_input()
            part.dx.point(self._dx.data_ptr())
        self._parts.append(part)
        self._width = width

    def _work_in(self, field: _Field, size: int) -> None:
        self._work.append(field)
        self.work_bytes = max(self.work_bytes, size)

    def _buffer(self, size: int) -> int:
        """Return the address of that many bytes, at the border of a cache line."""
        self._buffers.append(allocate(size + ALIGNMENT))
        return aligned(self._buffers[-1])

    def forward(
        self, x: Tensor, reset: Tensor | None = None, state: tuple[Tensor, ...] = ()
    ) -> Tensor | None:
        """Run the parts.

        Args:
            x: ``[B, T, inputs]``.
            reset: bool ``[B, T]``.
            state: of all parts, before the first step.

        Returns:
            The last output ``[B, T, D]``; ``None``: a tensor is not what C takes it for, or
            something is not finite.
        """
        y = self.place(x, reset, state)
        if y is None:
            return None
        self.work_at(own_scratch(self.work_bytes))
        return None if any([run(*call) for call in self.forward_calls()]) else y

    def place(self, x: Tensor, reset: Tensor | None, state: tuple[Tensor, ...]) -> Tensor | None:
        """Point the calls to what they read, and return where the last output will be.

        Arguments are those of `forward`; ``None``: one of them is not what C takes it for.
        """
        lead = (self.B, self.T)
        if not (is_plain(x, (*lead, self._inputs)) and self._held.take()):
            return None
        if reset is not None and not is_plain(reset, lead, torch.bool):
            return None
        if len(state) != len({place.tensor for place in self._states}):
            return None
        for place in self._states:
            tensor = state[place.tensor]
            if not is_plain(tensor, place.shape):
                return None
            place.field.point(tensor.data_ptr() + place.offset)
        self.resets_at(None if reset is None else reset.data_ptr())
        y = empty(*lead, self._width)
        self._parts[0].x.point(x.data_ptr())
        self._parts[-1].y.point(y.data_ptr())
        # aliases: a graph that ends in x or y is not to live as long as this
        self._given = x.detach(), reset, state, y.detach()
        return y

    def forward_calls(self) -> list[Call]:
        """Return the parts' calls, which need what `place` and `work_at` point to."""
        return [part.forward for part in self._parts]

    def backward(
        self, dy: Tensor, overwrites: bool = False
    ) -> tuple[Tensor | None, list[Tensor]] | None:
        """Go back through what the last `forward` did.

        Args:
            dy: ``[B, T, D]``, the gradient of its output.
            overwrites: whether the next call that says so, too, may write the gradients of the
                weights to where they are now.

        Returns:
            The gradient of x, which the next call overwrites, and those of `weights`; ``None``:
            one of them is not finite.
        """
        dy = dy.contiguous()
        found = self.place_back(dy, overwrites)
        self.work_at(own_scratch(self.work_bytes))
        return None if any([run(*call) for call in self.backward_calls()]) else found

    def place_back(self, dy: Tensor, overwrites: bool) -> tuple[Tensor | None, list[Tensor]]:
        """Point the calls to a gradient, its numbers in a row, and return where theirs will be.

        Arguments are those of `backward`; the caller keeps them alive.
        """
        grads = self._room_for_gradients(overwrites)
        self._parts[-1].dy.point(dy.data_ptr())
        return self._dx, grads

    def backward_calls(self) -> list[Call]:
        """Return the calls of the way back, which need what `place_back` points to as well."""
        return [part.backward for part in reversed(self._parts)]

    def resets_at(self, address: int | None) -> None:
        """Say where the flags of all parts are; ``None``: no episode starts."""
        for field in self._resets:
            field.point(address)

    def work_at(self, address: int) -> None:
        """Say where there are `work_bytes` to work in, at the border of a cache line."""
        for field in self._work:
            field.point(address)

    def release_gradients(self) -> None:
        """Leave the gradients that a call may overwrite to whoever has them."""
        self._kept = []

    def _room_for_gradients(self, overwrites: bool) -> list[Tensor]:
        grads = self._kept if overwrites else []
        if not grads:
            # views of one tensor would take four times as long to make (measured)
            grads = [*map(torch.empty_like, self.weights)]
        if overwrites:
            self._kept = grads  # new memory costs 2 % of a minibatch on two threads (measured)
        if grads is not self._pointed:
            for (arguments, name), grad in zip(self._grads, grads, strict=True):
                setattr(arguments, name, grad.data_ptr())
        self._pointed = self._kept if overwrites else []
        return grads


def _demand(covered: bool) -> None:
    if not covered:
        raise NotCoveredError
