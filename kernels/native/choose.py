"""Whether a call runs natively: the one place that decides.

    if takes_native(backend, x):                    # a function of xlstm_rl.kernels
    if takes_native(backend, x, whole_block=True):  # a block, whose products autocast would change

``"auto"`` takes native code for float32 on the CPU where the library is loaded; ``"native"``
demands it. The caller has checked that the other tensors go with ``x``, asks only for a case that
its C code covers, and hands on pointers of contiguous tensors. Every acting step asks: it costs
about a microsecond.

Step aside for whatever follows each operation of torch and would see nothing of a call by pointer:
the transforms of ``torch.func``, forward mode, ``torch.jit.trace``, ``torch.export``, modes such as
fake tensors or a count of operations, and subclasses of tensors. Under ``torch.compile`` a custom
op stands for the call.
"""

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import transforming
from xlstm_rl.kernels.native.library import library, why_not_native

LOADED = library() is not None
"""A constant, which a compiled caller can rely on."""

_PLAIN = (Tensor, torch.nn.Parameter)


def takes_native(backend: str, x: Tensor, whole_block: bool = False) -> bool:
    """Whether ``backend`` means native code for ``x``, here and now.

    Args:
        backend: one of `BACKENDS`.
        x: an input, of any device and dtype.
        whole_block: also refuse under autocast, which would change the block's products.

    Raises:
        RuntimeError: it is ``"native"``, and the library or the input does not allow it. Not so
            for transforms: there the reference takes over on every backend.
    """
    if backend == "auto":
        return LOADED and _fits(x) and not _followed(x) and not (whole_block and _autocast())
    if backend != "native":
        return False
    reason = why_not(x.device, x.dtype)
    if reason is not None:
        raise RuntimeError(
            f"backend='native' cannot run here: {reason}. Or leave backend='auto', which takes "
            "what runs"
        )
    return not _followed(x) and not (whole_block and _autocast())


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why inputs of a device and a dtype are not computed natively; ``None`` where they are."""
    if device.type != "cpu":
        return f"it runs on the CPU, and the inputs are on {device}"
    if dtype is not torch.float32:
        return f"it computes in float32, and the inputs are {str(dtype)[6:]}"
    return None if LOADED else why_not_native()  # a compiler sees the constant


def _fits(x: Tensor) -> bool:
    return x.is_cpu and x.dtype is torch.float32


def _followed(x: Tensor) -> bool:
    """Whether something looks on that knows the operations of torch alone."""
    if torch.compiler.is_compiling():
        # an exported program goes where there may be no library
        return transforming() or torch.compiler.is_exporting()
    return (
        transforming()
        or type(x) not in _PLAIN
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
    )


def _autocast() -> bool:
    return torch.is_autocast_enabled("cpu")
