"""Gradient steps: the step itself, its size, and the paper's RMSprop."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from xlstm_rl.distributed import ALONE, Ranks
from xlstm_rl.errors import NonFiniteLossError
from xlstm_rl.kernels.native.adam import clipped_adam_step
from xlstm_rl.profiling import NO_PROFILE, Profile
from xlstm_rl.seeding import torch_stream_restored
from xlstm_rl.terminal import tell


class RMSprop(Optimizer):
    """RMSprop with epsilon inside the root, as A3C's paper has it (arXiv:1602.01783, eq. S3).

    `g <- alpha g + (1 - alpha) grad^2`, `weight <- weight - lr grad / sqrt(g + eps)`. The average g
    starts at 0, and epsilon, being inside the root, is what bounds the first steps. (Started at 1,
    as some implementations do, it would need a thousand steps to come down to the gradients.)
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, alpha: float = 0.99, eps: float = 1e-5
    ) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step against the gradients."""
        if closure is not None:
            raise ValueError("RMSprop.step got a closure: compute the gradients before the step")
        for group in self.param_groups:
            lr, alpha, eps = group["lr"], group["alpha"], group["eps"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state: dict[str, Any] = self.state[weight]
                if not state:
                    state["square_avg"] = torch.zeros_like(weight)
                average = state["square_avg"]
                average.mul_(alpha).addcmul_(weight.grad, weight.grad, value=1.0 - alpha)
                weight.addcmul_(weight.grad, (average + eps).rsqrt_(), value=-lr)


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Give every parameter group the same step size."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Give an optimiser the averages of another of its kind, and leave it its own options.

    One of another kind, or with arguments that need other averages, has none that it could use: it
    starts fresh, which one line says.

    Args:
        optimizer: one that was just made.
        state: what `state_dict` of the other one returned.

    Raises:
        ValueError: the state is for other weights; the optimiser is as it was.
    """
    own, groups = optimizer.state_dict()["param_groups"], state["param_groups"]
    if [set(one) for one in groups] != [set(one) for one in own]:
        _tell_of_a_fresh_start()
        return
    if [one["params"] for one in groups] != [one["params"] for one in own]:
        raise ValueError("the optimiser's state is for other weights")
    numbers = [number for group in own for number in group["params"]]
    weights = dict(zip(numbers, _weights(optimizer), strict=True))
    needed = dict(zip(numbers, _state_of_a_first_step(optimizer), strict=True))
    saved = state["state"]
    if any(isinstance(number, int) and number not in weights for number in saved):
        raise ValueError("the optimiser's state is for other weights")
    # of a weight that never had a gradient there is nothing: its averages start when it has one
    kept = {number: saved[number] for number in numbers if saved.get(number)}
    if any(needed[number].keys() - values.keys() for number, values in kept.items()):
        _tell_of_a_fresh_start()
        return
    for number, values in kept.items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                _check_shape(name, value, weights[number], needed[number].get(name))
    optimizer.load_state_dict({"state": saved, "param_groups": own})
    for number, values in kept.items():  # torch has cast them all to the dtype of their weight
        for name, like in needed[number].items():
            if isinstance(like, Tensor) and isinstance(values[name], Tensor):
                loaded = optimizer.state[weights[number]]
                if loaded[name].dtype != like.dtype:
                    loaded[name] = values[name].to(loaded[name].device, like.dtype, copy=True)


def _tell_of_a_fresh_start() -> None:
    tell("agent.optimizer is another one than before: its state starts fresh")


def _weights(optimizer: Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _state_of_a_first_step(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return what an optimiser keeps of each weight after one step, by trying it on copies.

    Which averages there are, and of what shape, follows from its arguments and the weights' shapes
    in ways of each class's own. Of one that cannot be tried, nothing is returned for any weight.
    """
    try:
        # Copied without hooks; somebody's own optimiser may draw numbers.
        with torch_stream_restored(*(weight.device for weight in _weights(optimizer))):
            trial = copy.deepcopy(optimizer)
            for weight in _weights(trial):  # those that are frozen now may have been trained
                weight.grad = torch.zeros_like(weight)
            trial.step()
            return [dict(trial.state.get(weight, {})) for weight in _weights(trial)]
    except Exception:  # somebody's own, or one that wants what this device has not: left to itself
        return [{} for _ in _weights(optimizer)]


def _check_shape(name: str, value: Tensor, weight: Tensor, like: Any) -> None:
    """Refuse a tensor of an optimiser's state that its weight cannot have.

    `like` is what a first step made under that name, if it made anything.
    """
    expected = like.shape if isinstance(like, Tensor) else weight.shape if value.ndim else ()
    if value.shape != expected:
        raise ValueError(
            f"{name} of the optimiser has shape {list(value.shape)}, expected {list(expected)} "
            f"for its weight of shape {list(weight.shape)}"
        )


def gradient_step(
    optimizer: Optimizer,
    parameters: Sequence[nn.Parameter],
    loss: Tensor,
    log: dict[str, Tensor],
    max_grad_norm: float,
    step: int,
    profile: Profile = NO_PROFILE,
    ranks: Ranks = ALONE,
    valid: Tensor | None = None,
    backward: Callable[[Tensor], None] | None = None,
) -> None:
    """Take one step down a loss, and add the norm of its gradient to the log as `grad_norm`.

    With several processes loss, log and gradient are means over the valid steps of all of them.

    Args:
        optimizer: of the parameters.
        parameters: whose gradients are scaled down together to `max_grad_norm`.
        loss: a scalar.
        log: the loss's parts, named in the error.
        max_grad_norm: the largest global norm.
        step: environment steps done, for the error.
        profile: where the time is counted.
        ranks: the processes of the training, each of which takes the same step.
        valid: the steps of the minibatch that the loss is a mean over; None: all.
        backward: adds the gradient of a loss to the `.grad` of the parameters; None: torch does it.

    Raises:
        NonFiniteLossError: the loss or its gradient is not finite; the weights are as before.
    """
    with profile.part("backward"):
        for weight in parameters:  # `optimizer.zero_grad` costs as much as a layer (measured)
            weight.grad = None
        share = ranks.share(valid)
        if share is not None:
            loss = loss * share
            log |= {name: part * share for name, part in log.items()}
        if backward is None:
            torch.autograd.backward(loss)
        else:
            backward(loss)
        loss = loss.detach()
        ranks.average(parameters, [loss, *log.values()])
    with profile.part("optimizer"):
        norm = None
        if loss.device.type == "cpu" and math.isfinite(loss.item()):
            norm = clipped_adam_step(optimizer, parameters, max_grad_norm)
        if norm is None:
            log["grad_norm"] = nn.utils.clip_grad_norm_(parameters, max_grad_norm)
            _refuse_non_finite(loss, log, step)
            optimizer.step()
        else:  # of a norm that is not finite, no step was taken
            log["grad_norm"] = norm
            _refuse_non_finite(loss, log, step)


def _refuse_non_finite(loss: Tensor, log: dict[str, Tensor], step: int) -> None:
    if not math.isfinite((loss + log["grad_norm"]).item()):  # asks a GPU once
        parts = {name: x.item() for name, x in log.items() if not torch.isfinite(x)}
        raise NonFiniteLossError(
            f"non-finite loss at step {step}: "
            + ", ".join(f"{name}={x}" for name, x in parts.items())
            + "; the weights were left as they were. A smaller agent.learning_rate or "
            "agent.max_grad_norm, or reward normalisation, usually helps"
        )
