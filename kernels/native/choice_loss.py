"""PPO's loss of one choice a step and its gradients, from logits on, in one call."""

import ctypes
import functools
from typing import NamedTuple

import torch
from torch import Tensor

from xlstm_rl.kernels.native.arguments import bytes_for, pointer, run, struct
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.held import is_plain
from xlstm_rl.kernels.native.ppo_loss import (
    Options,
    Parts,
    PlacedLoss,
    named_parts,
    old_fits,
)
from xlstm_rl.kernels.native.program import Call
from xlstm_rl.kernels.native.workspace import own_scratch

_Arguments = struct(
    "choice_loss_arguments",
    "rows choices wants_barrier",
    "logits action value old_log_prob old_value advantage target valid options "
    "dlogits dvalue parts work",
)


class ChoiceLoss(NamedTuple):
    """A loss, its parts, and its gradients."""

    loss: Tensor
    parts: dict[str, Tensor]
    dlogits: Tensor
    dvalue: Tensor


def choice_loss(
    logits: Tensor,
    action: Tensor,
    value: Tensor,
    old: tuple[Tensor, Tensor, Tensor, Tensor],
    valid: Tensor | None,
    options: tuple[float, ...],
    wants_barrier: bool,
) -> ChoiceLoss | None:
    """Return what `choice_pass` and `loss_and_gradients` do one after the other, to the bit.

    Args:
        logits: ``[N, T, n]``, which belong to no graph.
        action: int64 ``[N, T]``.
        value: ``[N, T]``.
        old: as for `loss_and_gradients`, and so are the next two.
        valid: the steps that count.
        options: of the loss.
        wants_barrier: whether it has a log barrier.

    Returns:
        ``None``: torch has to do it, or to say what is wrong.
    """
    placed = placed_choice_loss(logits, action, value, old, valid, options, wants_barrier)
    if placed is None:
        return None
    placed.call.arguments.work = own_scratch(placed.work_bytes)
    if run(*placed.call):
        return None
    loss, *others = torch.tensor([*placed.parts]).unbind()
    return ChoiceLoss(loss, named_parts(others, wants_barrier), placed.doutputs, placed.dvalue)


def placed_choice_loss(
    logits: Tensor,
    action: Tensor,
    value: Tensor,
    old: tuple[Tensor, Tensor, Tensor, Tensor],
    valid: Tensor | None,
    options: tuple[float, ...],
    wants_barrier: bool,
) -> PlacedLoss | None:
    """Return the call that `choice_loss` makes, of the same arguments; it fails where that does."""
    if torch.compiler.is_compiling() or not (logits.dim() and takes_native("auto", logits)):
        return None
    shape, choices = logits.shape[:-1], logits.shape[-1]
    if not (choices and is_plain(logits, logits.shape) and is_plain(action, shape, torch.int64)):
        return None
    if not old_fits(shape, (value, *old), valid):
        return None
    dlogits, dvalue = torch.empty_like(logits), torch.empty_like(value)
    parts, given, rows = Parts(), Options(*options), action.numel()
    read = logits, action, value, *old, valid
    arguments = _Arguments(
        *(rows, choices, wants_barrier, *map(pointer, read), ctypes.addressof(given)),
        *(pointer(dlogits), pointer(dvalue), ctypes.addressof(parts)),
    )
    size = _work_bytes(rows, choices, wants_barrier)
    call = Call("xl_choice_loss", arguments)
    return PlacedLoss(call, size, wants_barrier, parts, dlogits, dvalue, None, (*read, given))


@functools.lru_cache(maxsize=64)
def _work_bytes(rows: int, choices: int, wants_barrier: bool) -> int:
    return bytes_for("xl_choice_loss_bytes", _Arguments(rows, choices, wants_barrier))
