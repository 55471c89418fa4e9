"""The states of the memory cells and the few numbers that all executions share."""

import math

import torch
from torch import Tensor

MLSTMState = tuple[Tensor, Tensor, Tensor]
"""``(C [B, H, K, V], n [B, H, K], m [B, H])``."""

SLSTMState = tuple[Tensor, Tensor, Tensor, Tensor]
"""``(h, c, n, m)``, each ``[B, H, D]``."""

_HALVES = (torch.bfloat16, torch.float16)
_EXP_BOUNDS = {
    dtype: float(math.floor(-math.log(torch.finfo(dtype).tiny)))
    for dtype in (torch.float32, torch.float64)
}


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that the cells compute in and keep their states in: float32 for the halves."""
    return torch.float32 if dtype in _HALVES else dtype


LEAST_LOG_FORGET = -1e5
"""A log forget gate of the mLSTM below this forgets all, as a reset does. So far below no input
gate lies, and the running sums of log forget gates keep their digits."""


def never_forgets_all(log_f: Tensor) -> bool:
    """Whether no log forget gate of the mLSTM is NaN or below `LEAST_LOG_FORGET`."""
    return log_f.numel() == 0 or log_f.min().item() >= LEAST_LOG_FORGET  # no rows, no minimum


def exp_bound(dtype: torch.dtype) -> float:
    """The largest ``x`` for which neither ``exp(x)`` nor ``exp(-x)`` leaves the normal numbers."""
    return _EXP_BOUNDS[dtype]


def any_reset(reset: Tensor) -> bool:
    """Whether a reset may be there: looked up where looking is cheaper than masking for nothing."""
    if reset.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    return bool(reset.any())


def all_finite(*xs: Tensor) -> bool:
    """Whether the tensors' sums are finite: if so, all that was summed is.

    The host waits for the answer. While a CUDA graph is being captured it cannot: then the answer
    is yes.
    """
    if not xs or (xs[0].is_cuda and torch.cuda.is_current_stream_capturing()):
        return True
    sums = [x.sum() for x in xs]
    return math.isfinite(float(sum(sums[1:], sums[0])))


def restart(x: Tensor, reset: Tensor, value: float = 0.0) -> Tensor:
    """Return ``x [B, ...]`` with ``value`` in the rows of ``reset [B]``; no NaN survives there."""
    if reset.device.type != "cpu" or torch.compiler.is_compiling():
        return x.masked_fill(reset.view(-1, *(1,) * (x.dim() - 1)), value)
    # measured: six times faster than a mask that is spread over whole rows
    return x.index_fill(0, reset.nonzero().squeeze(1), value)
