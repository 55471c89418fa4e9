"""PPO's loss and its gradients in one call: torch takes some forty operations for it."""

import ctypes
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_rl.kernels.native.arguments import empty, pointer, run, struct, tensor_of
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.held import is_plain
from xlstm_rl.kernels.native.program import Call
from xlstm_rl.kernels.native.workspace import own_scratch

_T = TypeVar("_T")

OPTIONS = (
    *("clip", "value_coef", "entropy_coef", "barrier_coef"),
    *("value_clip", "normalize", "least"),
)
"""In the order of the C code."""

PARTS = ("loss", "policy", "value", "entropy", "approx_kl", "clip_fraction", "log_barrier")
"""In the order of the C code."""

_Arguments = struct(
    "ppo_loss_arguments",
    "count",
    "log_prob entropy value barrier old_log_prob old_value advantage target valid options "
    "dlog_prob dentropy dvalue dbarrier parts",
)


Options = ctypes.c_double * len(OPTIONS)
Parts = ctypes.c_float * len(PARTS)
"""Read without torch, of which a cold operation costs 100 us."""


class PlacedLoss(NamedTuple):
    """The call that makes a loss of what a network says, and its gradients, and where it does."""

    call: Call
    """Its `work` is null: it needs `work_bytes`."""
    work_bytes: int
    has_barrier: bool
    parts: Any
    """`Parts`."""
    doutputs: Tensor
    dvalue: Tensor
    dlog_std: Tensor | None
    """``[N, T, A]``, where the log standard deviations are those of all steps: its sum over these
    is their gradient."""
    kept: tuple[Any, ...]
    """What the call points to, too."""

    def work_at(self, address: int) -> None:
        """Say where there are `work_bytes`."""
        self.call.arguments.work = address


New = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Log-probabilities, entropies, values and mean log-probabilities of all choices ``[N, T]``.

``None``: these are no choices, or no barrier is asked for.
"""


def clipped_loss(
    new: New,
    old: tuple[Tensor, Tensor, Tensor, Tensor],
    valid: Tensor | None,
    options: tuple[float, ...],
) -> tuple[Tensor, dict[str, Tensor]] | None:
    """Return PPO's loss, to be differentiated once, and its parts.

    Args:
        new: what the policy of now says.
        old: log-probabilities and values of the policy that acted, advantages and targets.
        valid: the steps that count, ``[N, T]``; ``None``: all.
        options: in the order of `OPTIONS`; a ``value_clip`` below 0 is none.

    Returns:
        ``None``: torch has to do it.
    """
    if not _fits(new, old, valid):
        return None
    loss, *parts = _Loss.apply(*new, old, valid, options)  # type: ignore[no-untyped-call]
    return loss, named_parts(parts, new[3] is not None)


def run_once(placed: PlacedLoss) -> tuple[Tensor, dict[str, Tensor]] | None:
    """Make a loss that is one call now, and return it with its parts; ``None``: the call fails."""
    placed.work_at(own_scratch(placed.work_bytes))
    if run(*placed.call):
        return None
    loss, *parts = tensor_of([*placed.parts]).unbind()
    return loss, named_parts(parts, placed.has_barrier)


def _fits(new: New, old: tuple[Tensor, ...], valid: Tensor | None) -> bool:
    given = new if new[3] is not None else new[:3]
    return takes_native("auto", new[0]) and old_fits(new[0].shape, (*given, *old), valid)


def old_fits(shape: torch.Size, given: Sequence[Any], valid: Tensor | None) -> bool:
    """Whether C can read what is given of each step, and which steps count."""
    if not all([is_plain(tensor, shape) for tensor in given]):
        return False
    return valid is None or is_plain(valid, shape, torch.bool)


def named_parts(parts: Sequence[_T], has_barrier: bool) -> dict[str, _T]:
    """Return the parts behind the loss itself by their names."""
    log = dict(zip(PARTS[1:], parts, strict=True))
    if not has_barrier:
        del log["log_barrier"]
    return log


def _run(
    new: New, old: tuple[Tensor, ...], valid: Tensor | None, options: tuple[float, ...]
) -> tuple[tuple[Tensor, ...], New]:
    """Return all parts, and the gradients of what is new."""
    given = torch.tensor(options, dtype=torch.float64, device="cpu")
    parts = empty(len(PARTS))
    like = partial(torch.empty_like, new[0])
    grads = like(), like(), like(), None if new[3] is None else like()
    tensors = (*new, *old, valid, given, *grads, parts)
    run("xl_ppo_loss", _Arguments(new[0].numel(), *map(pointer, tensors)))
    return parts.unbind(), grads


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        log_prob: Tensor,
        entropy: Tensor,
        value: Tensor,
        barrier: Tensor | None,
        old: tuple[Tensor, ...],
        valid: Tensor | None,
        options: tuple[float, ...],
    ) -> tuple[Tensor, ...]:
        (loss, *logged), ctx.grads = _run((log_prob, entropy, value, barrier), old, valid, options)
        ctx.mark_non_differentiable(*logged)
        ctx.set_materialize_grads(False)
        return loss, *logged

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> Any:
        if grad is None:
            return (None,) * 7
        factor, found = grad.item(), ctx.grads
        if factor != 1.0:
            found = [None if one is None else one * factor for one in found]
        return *found, None, None, None
