"""Memory cells as functions on tensors: one set of equations, several executions."""

if __name__ != "xlstm_rl.kernels":
    raise ImportError("this folder is the package xlstm_rl.kernels: import it by that name")

from xlstm_rl.kernels.backends import Backend, backends
from xlstm_rl.kernels.dispatch import (
    causal_conv1d,
    causal_conv1d_step,
    mlstm,
    mlstm_step,
    slstm,
    slstm_step,
)

__all__ = [
    "Backend",
    "backends",
    "causal_conv1d",
    "causal_conv1d_step",
    "mlstm",
    "mlstm_step",
    "slstm",
    "slstm_step",
]
