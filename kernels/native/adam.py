"""Clipping and Adam's step in one call: of torch's time half goes into passes over memory."""

import ctypes
import operator
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim import optimizer as base

from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.native.arguments import run, struct, tensor_of
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.program import Call

OPTIONS = ("learning_rate", "beta1", "beta2", "eps", "limit")
"""In the order of the C code."""

PIECE = 1024
"""As in the C code."""

_Tensor = struct("adam_tensor", "size first", "weight grad mean square step")
_Arguments = struct("adam_arguments", "count pieces", "tensors options squares factors norm")
_PLAIN = {
    "weight_decay": 0,
    "amsgrad": False,
    "maximize": False,
    "capturable": False,
    "differentiable": False,
}
"""What a group's options have to be: C does nothing else."""


def clipped_adam_step(
    optimizer: Optimizer, parameters: Sequence[Tensor], limit: float
) -> Tensor | None:
    """Scale the gradients down together to a largest norm, and take Adam's step.

    Does what `nn.utils.clip_grad_norm_` and `optimizer.step` do.

    Args:
        optimizer: of these parameters.
        parameters: all of them, in its order.
        limit: the largest norm.

    Returns:
        The norm before, a scalar; where it is not finite, weights, averages and gradients are as
        they were. None: it is another optimiser, has made no step yet, or a tensor is not what C
        takes it for: then nothing has happened.
    """
    placed = placed_adam_step(optimizer, parameters, [one.grad for one in parameters], limit)
    if placed is None:
        return None
    if not run(*placed.call):
        note_overwritten(parameters)
    return tensor_of(placed.norm.value)


class PlacedStep(NamedTuple):
    """The call that takes a step, as `clipped_adam_step` does, until the next one is placed."""

    call: Call
    """Fails where the norm is not finite: then nothing has changed."""
    norm: ctypes.c_float
    """Of the gradients before."""
    kept: Any
    """What the call points to, too."""


def placed_adam_step(
    optimizer: Optimizer,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    limit: float,
) -> PlacedStep | None:
    """Return the call of `clipped_adam_step`, which may be made again while nothing has moved.

    Args:
        optimizer: as there, and so are `parameters` and `limit`.
        parameters: of it.
        gradients: those of the parameters, which the caller keeps alive.
        limit: the largest norm.
    """
    if not steps_in_c(optimizer, parameters):
        return None
    (group,) = optimizer.param_groups
    held = _held(optimizer, parameters)
    if held is None or not held.take(gradients):
        return None
    return held.place([group["lr"], *group["betas"], group["eps"], limit])


def steps_in_c(optimizer: Optimizer, parameters: Sequence[Tensor]) -> TypeGuard[Adam]:
    """Whether C takes the steps of an optimiser, once that has averages."""
    if type(optimizer) is not Adam or len(optimizer.param_groups) != 1 or not parameters:
        return False
    if "step" in vars(optimizer):  # somebody's own, such as a scheduler's that counts
        return False
    (group,) = optimizer.param_groups
    if any(group.get(name, value) != value for name, value in _PLAIN.items()):
        return False
    if not (isinstance(group["lr"], float) and takes_native("auto", parameters[0])):
        return False
    if any((*_hooks(optimizer), *map(_is_array, group["betas"]))):
        return False
    return len(parameters) == len(group["params"])


class _Held:
    """Weights and averages whose pointers stand in an array, until one of them has moved.

    Each gradient step comes by, with a hundred tensors: no loop of Python's.
    """

    def __init__(self, weights: Sequence[Tensor], states: list[dict[str, Tensor]]) -> None:
        self.weights, self.states = list(weights), states
        self._shapes = [weight.shape for weight in weights]
        count = len(states)
        self._owners = states * len(_AVERAGES)
        self._names = [name for name in _AVERAGES for _ in states]
        self._addresses = self._look()
        self._gradients: list[int] = []
        self._places = (_Tensor * count)()
        each = [self._addresses[n::count] for n in range(count)]
        pieces = 0
        for place, weight, addresses in zip(self._places, weights, each, strict=True):
            place.size, place.first = weight.numel(), pieces
            pieces += -(-place.size // PIECE)
            place.weight, place.mean, place.square, place.step = addresses
        self._options = (ctypes.c_double * len(OPTIONS))()
        self._scratch = (ctypes.c_double * pieces)(), (ctypes.c_double * (2 * count))()
        self._arguments = _Arguments(count, pieces)
        self._arguments.tensors = ctypes.addressof(self._places)
        self._arguments.options = ctypes.addressof(self._options)
        self._arguments.squares, self._arguments.factors = map(ctypes.addressof, self._scratch)

    def _look(self) -> list[int]:
        averages = map(operator.getitem, self._owners, self._names)
        return [*map(Tensor.data_ptr, self.weights), *map(Tensor.data_ptr, averages)]

    def stands(self, weights: Sequence[Tensor], optimizer: Adam) -> bool:
        """Whether these are the ones, where they were."""
        state = optimizer.state
        return (
            len(weights) == len(self.weights)
            and len(state) == len(self.states)
            and all(map(operator.is_, weights, self.weights))
            and all(map(operator.is_, optimizer.param_groups[0]["params"], self.weights))
            and all(map(operator.is_, state.values(), self.states))
            and self._look() == self._addresses
        )

    def take(self, gradients: Sequence[Tensor | None]) -> bool:
        """Set the pointers of the gradients; False: C cannot read one of them."""
        found = [one for one in gradients if one is not None]
        if len(found) != len(gradients) or [one.shape for one in found] != self._shapes:
            return False
        if {*map(_kind_of, found)} != {_PLAIN_KIND} or not all(map(Tensor.is_contiguous, found)):
            return False
        addresses = [*map(Tensor.data_ptr, found)]
        if addresses != self._gradients:
            for place, address in zip(self._places, addresses, strict=True):
                place.grad = address
            self._gradients = addresses
        return True

    def place(self, options: list[float]) -> PlacedStep:
        """Return the step of these options, and where it says the norm before."""
        norm = ctypes.c_float()
        for number, value in enumerate(options):
            self._options[number] = value
        self._arguments.norm = ctypes.addressof(norm)
        return PlacedStep(Call("xl_adam", self._arguments), norm, self)


_kind_of = operator.attrgetter("dtype", "is_cpu")
_PLAIN_KIND = (torch.float32, True)
_AVERAGES = ("exp_avg", "exp_avg_sq", "step")
_all_held: "weakref.WeakKeyDictionary[Optimizer, _Held]" = weakref.WeakKeyDictionary()


def _held(optimizer: Adam, parameters: Sequence[Tensor]) -> _Held | None:
    """The pointers of all weights and averages; None: C cannot take one of them."""
    held = _all_held.get(optimizer)
    if held is not None and held.stands(parameters, optimizer):
        return held
    states: list[dict[str, Tensor]] = []
    for weight, own in zip(parameters, optimizer.param_groups[0]["params"], strict=True):
        state = optimizer.state.get(weight)
        if weight is not own or not state:
            return None
        mean, square, step = (state[name] for name in _AVERAGES)
        if not all(_is_plain(one, weight.shape) for one in (weight, mean, square)):
            return None
        if not (isinstance(step, Tensor) and _is_plain(step, ())):
            return None
        states.append(state)
    held = _all_held[optimizer] = _Held(parameters, states)
    return held


def _is_plain(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    return (
        tensor.dtype is torch.float32
        and tensor.is_cpu
        and tensor.shape == shape
        and tensor.is_contiguous()
    )


def _is_array(beta: Any) -> bool:
    return isinstance(beta, Tensor)


def _hooks(optimizer: Optimizer) -> tuple[Any, ...]:
    """Who wants to know of a step."""
    return (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        base._global_optimizer_pre_hooks,
        base._global_optimizer_post_hooks,
    )
