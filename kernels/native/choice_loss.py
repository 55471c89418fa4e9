"""PPO's loss of one choice a step and its gradients, from logits on, in one call."""

import ctypes
import functools
from typing import NamedTuple

import torch
from torch import Tensor

from xlstm_rl.kernels.native.arguments import bytes_for, pointer, run, struct
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.held import is_plain
from xlstm_rl.kernels.native.ppo_loss import OPTIONS, PARTS, named_parts
from xlstm_rl.kernels.native.workspace import own_scratch

_Arguments = struct(
    "choice_loss_arguments",
    "rows choices wants_barrier",
    "logits action value old_log_prob old_value advantage target valid options "
    "dlogits dvalue parts work",
)
_Options = ctypes.c_double * len(OPTIONS)


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
    if torch.compiler.is_compiling() or not (logits.dim() and takes_native("auto", logits)):
        return None
    shape, choices = logits.shape[:-1], logits.shape[-1]
    if not (choices and is_plain(logits, logits.shape) and is_plain(action, shape, torch.int64)):
        return None
    if not all([is_plain(one, shape) for one in (value, *old)]):
        return None
    if not (valid is None or is_plain(valid, shape, torch.bool)):
        return None
    dlogits, dvalue = torch.empty_like(logits), torch.empty_like(value)
    parts, given, rows = torch.empty(len(PARTS)), _Options(*options), action.numel()
    tensors = map(pointer, (logits, action, value, *old, valid))
    made = map(pointer, (dlogits, dvalue, parts))
    work = own_scratch(_work_bytes(rows, choices, wants_barrier))
    arguments = _Arguments(
        *(rows, choices, wants_barrier), *tensors, ctypes.addressof(given), *made, work
    )
    if run("xl_choice_loss", arguments):
        return None
    loss, *others = parts.unbind()
    return ChoiceLoss(loss, named_parts(others, wants_barrier), dlogits, dvalue)


@functools.lru_cache(maxsize=64)
def _work_bytes(rows: int, choices: int, wants_barrier: bool) -> int:
    return bytes_for("xl_choice_loss_bytes", _Arguments(rows, choices, wants_barrier))
