"""The public door: shapes, dtypes and devices are checked here, once.

Acting goes through this door at every step, with the same shapes for hours: a combination that
has passed is remembered, and only a new one is looked at in detail.
"""

from collections.abc import Hashable
from typing import NoReturn

import torch
from torch import Tensor

from xlstm_rl.kernels.types import compute_dtype
from xlstm_rl.options.arguments import check_whole, close_names

BACKENDS = ("auto", "reference", "torch", "native", "triton")
FORGET_GATES = ("sigmoid", "exponential")
ACTIVATIONS = ("none", "silu")

_passed: set[Hashable] = set()


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value in choices:
        return
    near = close_names(str(value), choices, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{name}={value!r} is unknown: {hint}choose one of {', '.join(choices)}")


def check_mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    state: tuple[Tensor, Tensor, Tensor] | None,
    axes: str,
) -> None:
    """Check the inputs of an mLSTM; ``axes`` is ``"BT"`` for a sequence, ``"B"`` for a step."""
    signature = _signature("mlstm " + axes, q, k, v, i, f, reset, *_tensors(state))
    if signature in _passed:
        return
    _need_rank("q", q, axes + "HK")
    _need_rank("v", v, axes + "HV")
    lead, dtype, device = q.shape[:-2], q.dtype, q.device
    H, K, V = q.shape[-2], q.shape[-1], v.shape[-1]
    half = (dtype, compute_dtype(dtype))
    _need_floating("q", q)
    for name, x, shape, letters, dtypes in (
        ("k", k, (*lead, H, K), axes + "HK", (dtype,)),
        ("v", v, (*lead, H, V), axes + "HV", (dtype,)),
        ("i", i, (*lead, H), axes + "H", half),
        ("f", f, (*lead, H), axes + "H", half),
    ):
        _need(name, x, shape, letters, dtypes, device, "q")
    _need_time(lead)
    _need_reset(reset, lead, axes, device)
    B = lead[0]
    shapes = (((B, H, K, V), "BHKV"), ((B, H, K), "BHK"), ((B, H), "BH"))
    _need_state(state, ("C", "n", "m"), shapes, half, device)
    _remember(signature)


def check_slstm(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: tuple[Tensor, Tensor, Tensor, Tensor] | None,
    axes: str,
) -> None:
    """Check the inputs of an sLSTM; ``axes`` is ``"BT"`` for a sequence, ``"B"`` for a step."""
    signature = _signature("slstm " + axes, x, R, b, reset, *_tensors(state))
    if signature in _passed:
        return
    _need_rank("x", x, axes + "4HD")
    lead, dtype, device = x.shape[: len(axes)], x.dtype, x.device
    B, H, D = lead[0], x.shape[-2], x.shape[-1]
    half = (dtype, compute_dtype(dtype))
    _need_floating("x", x)
    _need("x", x, (*lead, 4, H, D), axes + "4HD", half, device, "x")
    _need("R", R, (4, H, D, D), "4HDD", half, device, "x")
    _need("b", b, (4, H, D), "4HD", half, device, "x")
    _need_time(lead)
    _need_reset(reset, lead, axes, device)
    _need_state(state, ("h", "c", "n", "m"), (((B, H, D), "BHD"),) * 4, half, device)
    _remember(signature)


def check_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    axes: str,
) -> None:
    """Check the inputs of a convolution; ``axes`` is ``"BT"`` for a sequence, ``"B"`` else."""
    signature = _signature("conv1d " + axes, x, weight, bias, reset, state)
    if signature in _passed:
        return
    _need_rank("x", x, axes + "C")
    _need_rank("weight", weight, "CW")
    lead, C, W, dtype, device = x.shape[:-1], x.shape[-1], weight.shape[1], x.dtype, x.device
    half = (dtype, compute_dtype(dtype))
    _need_floating("x", x)
    _need("weight", weight, (C, W), "CW", half, device, "x")
    if bias is not None:
        _need("bias", bias, (C,), "C", half, device, "x")
    if W < 1:
        raise ValueError("weight has no taps (W = 0): a convolution needs W >= 1")
    _need_time(lead)
    _need_reset(reset, lead, axes, device)
    if state is not None:
        _need("state", state, (lead[0], W - 1, C), "B W-1 C", (dtype,), device, "x")
    _remember(signature)


def _tensors(state: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
    return state if type(state) is tuple else (state,)  # type: ignore[return-value]


def _signature(door: str, *xs: Tensor | None) -> Hashable:
    """All that the checks look at, or ``None`` where something is not a tensor."""
    if torch.compiler.is_compiling():  # checked while tracing; sizes may be symbols there
        return None
    try:
        return door, *(None if x is None else (x.shape, x.dtype, x.device) for x in xs)
    except AttributeError:
        return None


def _remember(signature: Hashable) -> None:
    if signature is None:
        return
    if len(_passed) >= 4096:
        _passed.clear()
    _passed.add(signature)


def _reset_fits(reset: Tensor, lead: torch.Size, device: torch.device) -> bool:
    return reset.dtype is torch.bool and reset.shape == lead and reset.device == device


def _need_time(lead: torch.Size) -> None:
    if len(lead) == 2 and lead[1] == 0:
        raise ValueError("the sequence has no steps (T = 0): hand over at least one")


def _need_reset(reset: Tensor | None, lead: torch.Size, axes: str, device: torch.device) -> None:
    if reset is None or _reset_fits(reset, lead, device):
        return
    if reset.dtype is not torch.bool:
        raise ValueError(
            f"reset has dtype {reset.dtype}, expected torch.bool (true where a step is the "
            "first of an episode): hand over reset.bool()"
        )
    _need("reset", reset, tuple(lead), axes, (torch.bool,), device, "the inputs")


def _need_rank(name: str, x: Tensor, letters: str) -> None:
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} is a {type(x).__name__}, expected a tensor {_show(letters)}")
    if x.dim() != len(letters):
        raise ValueError(
            f"{name} has shape {list(x.shape)}, expected {len(letters)} axes {_show(letters)}"
        )


def _need_floating(name: str, x: Tensor) -> None:
    if not x.dtype.is_floating_point:
        raise ValueError(f"{name} has dtype {x.dtype}, expected a floating one: use {name}.float()")


def _need(
    name: str,
    x: Tensor,
    shape: tuple[int, ...],
    letters: str,
    dtypes: tuple[torch.dtype, ...],
    device: torch.device,
    other: str,
) -> None:
    if x.shape == shape and x.dtype in dtypes and x.device == device:
        return
    if x.shape != shape:
        raise ValueError(
            f"{name} has shape {list(x.shape)}, expected {_show(letters)} = {list(shape)} "
            f"to go with {other}"
        )
    if x.device != device:
        raise ValueError(
            f"{name} is on {x.device} but {other} on {device}: move it with {name}.to({device})"
        )
    wanted = " or ".join(dict.fromkeys(str(d) for d in dtypes))
    raise ValueError(
        f"{name} has dtype {x.dtype}, expected {wanted} to go with {other}: "
        f"cast it with {name}.to({dtypes[0]})"
    )


def _need_state(
    state: tuple[Tensor, ...] | None,
    names: tuple[str, ...],
    shapes: tuple[tuple[tuple[int, ...], str], ...],
    dtypes: tuple[torch.dtype, ...],
    device: torch.device,
) -> None:
    if state is None:
        return
    if not isinstance(state, (tuple, list)) or len(state) != len(names):
        _fail_state(state, names)
    for name, x, (shape, letters) in zip(names, state, shapes, strict=True):
        if not isinstance(x, Tensor):
            _fail_state(state, names)
        _need(f"state {name}", x, shape, letters, dtypes, device, "the inputs")


def _fail_state(state: object, names: tuple[str, ...]) -> NoReturn:
    what = f"a {type(state).__name__}"
    if isinstance(state, (tuple, list)):
        what += f" of {', '.join(type(part).__name__ for part in state) or 'nothing'}"
    raise ValueError(
        f"state is {what}, expected None (fresh) or the tuple of tensors "
        f"({', '.join(names)}) that an earlier call handed back"
    )


def _show(letters: str) -> str:
    parts = letters.split() if " " in letters else list(letters)
    return f"[{', '.join(parts)}]"


def check_chunk_size(chunk_size: int) -> int:
    """Return ``chunk_size`` as a Python integer; ``ValueError`` unless it is a positive one."""
    if type(chunk_size) is int and chunk_size > 0:
        return chunk_size
    return check_whole("chunk_size", chunk_size, 1)


def check_inplace(inplace: bool, state: object, *inputs: Tensor | None) -> None:
    """Raise unless there is a state to overwrite and no gradient that would need the old one."""
    if not inplace:
        return
    if state is None:
        raise ValueError("inplace=True needs a state to overwrite: hand over zeros to start with")
    state = state if isinstance(state, (tuple, list)) else (state,)
    if torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and x.requires_grad for x in (*inputs, *state)
    ):
        raise RuntimeError(
            "inplace=True would overwrite a state that the gradients need: "
            "call it under torch.no_grad(), or leave inplace=False"
        )
