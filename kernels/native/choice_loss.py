"""PPO's loss of choices and its gradients, from a network's outputs on, in one call."""

import ctypes
import functools

import torch
from torch import Tensor

from xlstm_rl.kernels.native.arguments import bytes_for, pointer, struct
from xlstm_rl.kernels.native.categorical import Counts, choices_fit, held_counts
from xlstm_rl.kernels.native.held import is_plain
from xlstm_rl.kernels.native.ppo_loss import Options, Parts, PlacedLoss, old_fits
from xlstm_rl.kernels.native.program import Call

_Arguments = struct(
    "choice_loss_arguments",
    "rows choices numbers wants_barrier",
    "counts outputs open action value old_log_prob old_value advantage target valid options "
    "doutputs dvalue parts work",
)


def placed_choice_loss(
    outputs: Tensor,
    action: Tensor,
    value: Tensor,
    old: tuple[Tensor, Tensor, Tensor, Tensor],
    valid: Tensor | None,
    options: tuple[float, ...],
    wants_barrier: bool,
    counts: Counts = None,
    mask: Tensor | None = None,
) -> PlacedLoss | None:
    """Return the call that does what `choice_terms` and `clipped_loss` do, to the bit.

    It fails where an action is none of the choices.

    Args:
        outputs: ``[N, T, n]``, logits but for the mask, which belong to no graph.
        action: int64 ``[N, T]``, or with `counts` ``[N, T, K]``.
        value: ``[N, T]``.
        old: as for `clipped_loss`, and so are the next two.
        valid: the steps that count.
        options: of the loss.
        wants_barrier: whether it has a log barrier.
        counts: choices of each number, as for `choice_terms`.
        mask: what can be chosen, ``[N, T, n]``; ``None``: all.

    Returns:
        ``None``: torch has to do it, or to say what is wrong.
    """
    if not choices_fit(outputs, action, counts):
        return None
    shape, choices = outputs.shape[:-1], outputs.shape[-1]
    if not old_fits(shape, (value, *old), valid):
        return None
    if not (mask is None or is_plain(mask, outputs.shape, torch.bool)):
        return None
    doutputs, dvalue = torch.empty_like(outputs), torch.empty_like(value)
    parts, given, rows, held = Parts(), Options(*options), value.numel(), held_counts(counts)
    read = outputs, mask, action, value, *old, valid
    sizes = rows, choices, 1 if counts is None else len(counts), wants_barrier
    arguments = _Arguments(
        *(*sizes, None if held is None else ctypes.addressof(held), *map(pointer, read)),
        *(ctypes.addressof(given), pointer(doutputs), pointer(dvalue), ctypes.addressof(parts)),
    )
    work_bytes = _work_bytes(*sizes, mask is not None)
    return PlacedLoss(
        *(Call("xl_choice_loss", arguments), work_bytes, wants_barrier, parts, doutputs, dvalue),
        *(None, (*read, given, held)),
    )


@functools.lru_cache(maxsize=64)
def _work_bytes(rows: int, choices: int, numbers: int, barrier: bool, has_mask: bool) -> int:
    # the mask is only asked whether it is null
    arguments = _Arguments(rows, choices, numbers, barrier, None, None, 1 if has_mask else None)
    return bytes_for("xl_choice_loss_bytes", arguments)
