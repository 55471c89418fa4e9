"""PPO's loss of independent normals and its gradients, from a network's outputs on, in one call."""

import ctypes
import functools

import torch
from torch import Tensor

from xlstm_rl.kernels.native.arguments import bytes_for, empty, pointer, struct
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.gaussian import Spread, floats
from xlstm_rl.kernels.native.held import is_plain
from xlstm_rl.kernels.native.ppo_loss import Options, Parts, PlacedLoss, old_fits
from xlstm_rl.kernels.native.program import Call

_Arguments = struct(
    "number_loss_arguments",
    "rows numbers",
    "outputs log_std action spread value old_log_prob old_value advantage target valid options "
    "doutputs dparams dvalue parts work",
)


def placed_number_loss(
    outputs: Tensor,
    log_std: Tensor | None,
    action: Tensor,
    value: Tensor,
    old: tuple[Tensor, Tensor, Tensor, Tensor],
    valid: Tensor | None,
    options: tuple[float, ...],
    spread: Spread,
) -> PlacedLoss | None:
    """Return the call that does what `number_terms` and `clipped_loss` do, to the bit.

    Args:
        outputs: means ``[N, T, A]``, or with log standard deviations behind them ``[N, T, 2A]``.
        log_std: those of all steps ``[A]``; ``None``: they are among the outputs.
        action: ``[N, T, A]``.
        value: ``[N, T]``.
        old: as for `clipped_loss`, and so are the next two.
        valid: the steps that count.
        options: of the loss.
        spread: of the log standard deviations.

    Returns:
        ``None``: torch has to do it, or to say what is wrong.
    """
    if torch.compiler.is_compiling() or not (outputs.dim() and takes_native("auto", outputs)):
        return None
    shape, numbers = action.shape[:-1], action.shape[-1]
    size = numbers if log_std is not None else 2 * numbers
    if not (is_plain(outputs, (*shape, size)) and is_plain(action, action.shape)):
        return None
    if not (log_std is None or is_plain(log_std, (numbers,))):
        return None
    if not old_fits(shape, (value, *old), valid):
        return None
    doutputs, dvalue = torch.empty_like(outputs), torch.empty_like(value)
    dparams = None if log_std is None else empty(*shape, 2 * numbers)
    parts, given, rows = Parts(), Options(*options), value.numel()
    held, read = floats(spread), (value, *old, valid)
    arguments = _Arguments(
        *(rows, numbers, *map(pointer, (outputs, log_std, action)), ctypes.addressof(held)),
        *(*map(pointer, read), ctypes.addressof(given)),
        *(*map(pointer, (doutputs, dparams, dvalue)), ctypes.addressof(parts)),
    )
    return PlacedLoss(
        *(Call("xl_number_loss", arguments), _work_bytes(rows, numbers), False, parts),
        *(doutputs, dvalue, None if dparams is None else dparams[..., numbers:]),
        (outputs, log_std, action, *read, given, held),
    )


@functools.lru_cache(maxsize=64)
def _work_bytes(rows: int, numbers: int) -> int:
    return bytes_for("xl_number_loss_bytes", _Arguments(rows, numbers))
