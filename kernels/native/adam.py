"""Clipping and Adam's step in one call: of torch's time half goes into passes over memory."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim import optimizer as base

from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.native.arguments import run, struct
from xlstm_rl.kernels.native.choose import takes_native

OPTIONS = ("learning_rate", "beta1", "beta2", "eps", "limit")
"""In the order of the C code."""

_Tensor = struct("adam_tensor", "size", "weight grad mean square step")
_Arguments = struct("adam_arguments", "count", "tensors options squares norm")
_PLAIN = {
    "weight_decay": 0,
    "amsgrad": False,
    "maximize": False,
    "capturable": False,
    "differentiable": False,
}
"""What a group's options have to be: C does nothing else."""


class NotFiniteError(Exception):
    """The gradient's norm is not finite; weights, averages and gradients are as they were."""

    def __init__(self, norm: Tensor) -> None:
        super().__init__(f"the norm of the gradient is {norm.item()}")
        self.norm = norm


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
        The norm before, a scalar; None: it is another optimiser, has made no step yet, or a tensor
        is not what C takes it for: then nothing has happened.

    Raises:
        NotFiniteError: the norm is not finite.
    """
    if type(optimizer) is not Adam or len(optimizer.param_groups) != 1 or not parameters:
        return None
    (group,) = optimizer.param_groups
    if any(group.get(name, value) != value for name, value in _PLAIN.items()):
        return None
    if not (isinstance(group["lr"], float) and takes_native("auto", parameters[0])):
        return None
    if any((*_hooks(optimizer), *map(_is_array, group["betas"]))):
        return None
    if len(parameters) != len(group["params"]):
        return None
    tensors = (_Tensor * len(parameters))()
    for weight, own, place in zip(parameters, group["params"], tensors, strict=True):
        state = optimizer.state.get(weight)
        if weight is not own or not state or weight.grad is None:
            return None
        each = (weight, weight.grad, state["exp_avg"], state["exp_avg_sq"])
        if not (_are_plain(each) and _is_counter(state["step"])):
            return None
        place.size = weight.numel()
        place.weight, place.grad, place.mean, place.square = [one.data_ptr() for one in each]
        place.step = state["step"].data_ptr()
    return _run(tensors, (group["lr"], *group["betas"], group["eps"], limit), parameters)


def _run(tensors: Any, options: tuple[float, ...], parameters: Sequence[Tensor]) -> Tensor:
    count = len(parameters)
    doubles = torch.tensor((*options, *[0.0] * count), dtype=torch.float64)
    norm = torch.empty(())
    first = doubles.data_ptr()
    arguments = _Arguments(count)
    arguments.tensors = ctypes.addressof(tensors)
    arguments.options, arguments.squares = first, first + 8 * len(options)
    arguments.norm = norm.data_ptr()
    if run("xl_adam", arguments):
        raise NotFiniteError(norm)
    note_overwritten(parameters)
    return norm


def _are_plain(tensors: Sequence[Tensor]) -> bool:
    shape = tensors[0].shape
    return all(
        one.dtype is torch.float32 and one.is_cpu and one.shape == shape and one.is_contiguous()
        for one in tensors
    )


def _is_counter(step: Any) -> bool:
    return isinstance(step, Tensor) and step.dtype is torch.float32 and step.is_cpu


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
