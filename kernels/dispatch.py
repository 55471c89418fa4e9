"""The six public functions: check the inputs once, pick an execution, run it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels import checks
from xlstm_rl.kernels.autograd import transforming
from xlstm_rl.kernels.conv1d import reference as conv1d_reference
from xlstm_rl.kernels.conv1d import shifted as conv1d_shifted
from xlstm_rl.kernels.launch import MAX_HEAD_SIZE, why_not_triton
from xlstm_rl.kernels.mlstm import ops as mlstm_ops
from xlstm_rl.kernels.mlstm import reference as mlstm_reference
from xlstm_rl.kernels.mlstm import step as mlstm_fast_step
from xlstm_rl.kernels.native import conv1d as conv1d_native
from xlstm_rl.kernels.native import mlstm as mlstm_native
from xlstm_rl.kernels.native import slstm as slstm_native
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.slstm import ops as slstm_ops
from xlstm_rl.kernels.slstm import reference as slstm_reference
from xlstm_rl.kernels.slstm import step as slstm_fast_step
from xlstm_rl.kernels.types import MLSTMState, SLSTMState


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None = None,
    state: MLSTMState | None = None,
    chunk_size: int = 64,
    forget_gate: str = "sigmoid",
    backend: str = "auto",
) -> tuple[Tensor, MLSTMState]:
    """Run the mLSTM, a matrix memory with exponential gating, over whole sequences.

    Source: Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024, equations 19-27, without
    an epsilon in the denominator, so that ``h`` does not depend on how ``m`` was computed.

    Args:
        q: queries ``[B, T, H, K]``; scaled by ``K ** -0.5`` inside.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        i: input gate pre-activations ``[B, T, H]`` (the gate is their exponential).
        f: forget gate pre-activations ``[B, T, H]``. One whose logarithm is below -1e5, such as
            -inf, forgets all, as a reset does.
        reset: bool ``[B, T]``, true where a step is the first of an episode: the memory before it
            is fresh. ``None``: no resets.
        state: ``(C [B, H, K, V], n [B, H, K], m [B, H])`` to start from. ``None``: zeros, which is
            a fresh memory: in a row ``[b, h]`` where all three are 0 nothing was written yet, and
            m has no say in the next one, which is i.
        chunk_size: the longest chunk of the chunkwise executions; changes speed, not meaning.
        forget_gate: ``"sigmoid"`` or ``"exponential"``.
        backend: ``"auto"``, ``"reference"``, ``"torch"``, ``"native"`` or ``"triton"``.

    Returns:
        ``h [B, T, H, V]`` in the dtype of the inputs and the state after the last step, which is
        float32 for half-precision inputs. Every floating input has its exact gradient.

    Raises:
        ValueError: a shape, dtype, device, name or size that does not fit; the message says which.
        RuntimeError: a backend that cannot run here.
    """
    checks.check_mlstm(q, k, v, i, f, reset, state, "BT")
    chunk_size = checks.check_chunk_size(chunk_size)
    eager = not torch.compiler.is_compiling()
    execution = _pick(backend, q, forget_gate, max(q.shape[-1], v.shape[-1]), has_native=eager)
    if execution == "native":
        found = mlstm_native.mlstm(q, k, v, i, f, reset, state, chunk_size, forget_gate)
        if found is not None:
            return found
        execution = "torch"
    if execution == "triton":
        from xlstm_rl.kernels.mlstm.triton import ops as mlstm_triton

        return mlstm_triton.mlstm(q, k, v, i, f, reset, state, chunk_size, forget_gate)
    if execution == "torch":
        return mlstm_ops.mlstm(q, k, v, i, f, reset, state, chunk_size, forget_gate)
    return mlstm_reference.mlstm(q, k, v, i, f, reset, state, forget_gate)


def mlstm_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None = None,
    state: MLSTMState | None = None,
    forget_gate: str = "sigmoid",
    backend: str = "auto",
    inplace: bool = False,
) -> tuple[Tensor, MLSTMState]:
    """Run one step of the mLSTM: `mlstm` without the time axis.

    Args:
        q: queries ``[B, H, K]``.
        k: keys ``[B, H, K]``.
        v: values ``[B, H, V]``.
        i: input gate pre-activations ``[B, H]``.
        f: forget gate pre-activations ``[B, H]``.
        reset: bool ``[B]``, true where this step is the first of an episode.
        state: as for `mlstm`; it is not written to unless ``inplace``.
        forget_gate: ``"sigmoid"`` or ``"exponential"``.
        backend: as for `mlstm`.
        inplace: overwrite the tensors of ``state`` and hand them back; for acting, without
            gradients. An episode that starts afresh is reset in place as well.

    Returns:
        ``h [B, H, V]`` and the state after the step.

    Raises:
        ValueError: a shape, dtype, device or name that does not fit.
        RuntimeError: a backend that cannot run here.
    """
    checks.check_mlstm(q, k, v, i, f, reset, state, "B")
    checks.check_inplace(inplace, state, q, k, v, i, f)
    eager = not torch.compiler.is_compiling()
    execution = _pick(backend, q, forget_gate, max(q.shape[-1], v.shape[-1]), has_native=eager)
    if execution == "native":
        return mlstm_native.mlstm_step(q, k, v, i, f, reset, state, forget_gate, inplace)
    if execution == "triton":
        from xlstm_rl.kernels.mlstm.triton import ops as mlstm_triton

        return mlstm_triton.mlstm_step(q, k, v, i, f, reset, state, forget_gate, inplace)
    run = mlstm_fast_step if execution == "torch" else mlstm_reference
    h, after = run.mlstm_step(q, k, v, i, f, reset, state, forget_gate)
    return h, _overwrite(state, after) if inplace else after


def slstm(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None = None,
    state: SLSTMState | None = None,
    forget_gate: str = "sigmoid",
    backend: str = "auto",
) -> tuple[Tensor, SLSTMState]:
    """Run the sLSTM, a scalar memory with memory mixing, over whole sequences.

    Source: Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024, equations 8-17; the
    stabiliser starts at ``i`` wherever the normaliser is still 0, element by element.

    Args:
        x: pre-activations ``[B, T, 4, H, D]`` in the order i, f, z, o.
        R: recurrent weights ``[4, H, D (from), D (to)]``, one block per gate and head.
        b: biases ``[4, H, D]``.
        reset: bool ``[B, T]``, true where a step is the first of an episode: the memory before it
            is fresh. ``None``: no resets.
        state: ``(h, c, n, m)``, each ``[B, H, D]``, to start from. ``None``: zeros.
        forget_gate: ``"sigmoid"`` or ``"exponential"``.
        backend: ``"auto"``, ``"reference"``, ``"torch"``, ``"native"`` or ``"triton"``.

    Returns:
        ``h [B, T, H, D]`` in the dtype of ``x`` and the state after the last step, which is
        float32 for half-precision inputs. Every floating input has its exact gradient.

    Raises:
        ValueError: a shape, dtype, device or name that does not fit; the message says which.
        RuntimeError: a backend that cannot run here.
    """
    checks.check_slstm(x, R, b, reset, state, "BT")
    execution = _pick(backend, x, forget_gate, x.shape[-1], has_native=True)
    if execution == "native":
        return slstm_native.slstm(x, R, b, reset, state, forget_gate)
    if execution == "triton":
        from xlstm_rl.kernels.slstm.triton import ops as slstm_triton

        return slstm_triton.slstm(x, R, b, reset, state, forget_gate)
    if execution == "torch":
        return slstm_ops.slstm(x, R, b, reset, state, forget_gate)
    return slstm_reference.slstm(x, R, b, reset, state, forget_gate)


def slstm_step(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None = None,
    state: SLSTMState | None = None,
    forget_gate: str = "sigmoid",
    backend: str = "auto",
    inplace: bool = False,
) -> tuple[Tensor, SLSTMState]:
    """Run one step of the sLSTM: `slstm` without the time axis.

    Args:
        x: pre-activations ``[B, 4, H, D]`` in the order i, f, z, o.
        R: recurrent weights ``[4, H, D (from), D (to)]``.
        b: biases ``[4, H, D]``.
        reset: bool ``[B]``, true where this step is the first of an episode.
        state: as for `slstm`; it is not written to unless ``inplace``.
        forget_gate: ``"sigmoid"`` or ``"exponential"``.
        backend: as for `slstm`.
        inplace: overwrite the tensors of ``state`` and hand them back; for acting, without
            gradients. An episode that starts afresh is reset in place as well.

    Returns:
        ``h [B, H, D]`` and the state after the step.

    Raises:
        ValueError: a shape, dtype, device or name that does not fit.
        RuntimeError: a backend that cannot run here.
    """
    checks.check_slstm(x, R, b, reset, state, "B")
    checks.check_inplace(inplace, state, x, R, b)
    execution = _pick(backend, x, forget_gate, x.shape[-1], has_native=True)
    if execution == "native":
        return slstm_native.slstm_step(x, R, b, reset, state, forget_gate, inplace)
    if execution == "triton":
        from xlstm_rl.kernels.slstm.triton import ops as slstm_triton

        return slstm_triton.slstm_step(x, R, b, reset, state, forget_gate, inplace)
    run = slstm_fast_step if execution == "torch" else slstm_reference
    h, after = run.slstm_step(x, R, b, reset, state, forget_gate)
    return h, _overwrite(state, after) if inplace else after


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None = None,
    state: Tensor | None = None,
    activation: str = "none",
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Run a depthwise causal convolution over whole sequences, never across an episode's start.

    Args:
        x: inputs ``[B, T, C]``.
        weight: taps ``[C, W]``, the last one for the present step (as ``conv1d`` has it).
        bias: ``[C]`` or ``None``.
        reset: bool ``[B, T]``, true where a step is the first of an episode: the taps see zeros
            in place of the inputs before it. ``None``: no resets.
        state: the last ``W - 1`` inputs ``[B, W - 1, C]``, oldest first. ``None``: zeros.
        activation: what ``y`` passes through: ``"none"`` or ``"silu"``.
        backend: ``"auto"``, ``"reference"``, ``"torch"``, ``"native"`` or ``"triton"``.

    Returns:
        ``y [B, T, C]`` and the last ``W - 1`` inputs, zero where they lie before the last reset.

    Raises:
        ValueError: a shape, dtype, device or name that does not fit; the message says which.
        RuntimeError: a backend that cannot run here.
    """
    checks.check_conv1d(x, weight, bias, reset, state, "BT")
    checks.check_choice("activation", activation, checks.ACTIVATIONS)
    execution = _pick(backend, x, has_native=not torch.compiler.is_compiling())
    if execution == "native":
        return conv1d_native.causal_conv1d(x, weight, bias, reset, state, activation)
    if execution == "triton":
        from xlstm_rl.kernels.conv1d.triton import ops as conv1d_triton

        return conv1d_triton.causal_conv1d(x, weight, bias, reset, state, activation)
    run = conv1d_shifted if execution == "torch" else conv1d_reference
    y, after = run.causal_conv1d(x, weight, bias, reset, state)
    return F.silu(y) if activation == "silu" else y, after


def causal_conv1d_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None = None,
    state: Tensor | None = None,
    activation: str = "none",
    backend: str = "auto",
    inplace: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run one step of the convolution: `causal_conv1d` without the time axis.

    Args:
        x: inputs ``[B, C]``.
        weight: taps ``[C, W]``, the last one for the present step.
        bias: ``[C]`` or ``None``.
        reset: bool ``[B]``, true where this step is the first of an episode.
        state: as for `causal_conv1d`; it is not written to unless ``inplace``.
        activation: as for `causal_conv1d`.
        backend: as for `causal_conv1d`.
        inplace: overwrite ``state`` and hand it back; for acting, without gradients.

    Returns:
        ``y [B, C]`` and the state after the step.

    Raises:
        ValueError: a shape, dtype, device or name that does not fit.
        RuntimeError: a backend that cannot run here.
    """
    checks.check_conv1d(x, weight, bias, reset, state, "B")
    checks.check_choice("activation", activation, checks.ACTIVATIONS)
    checks.check_inplace(inplace, state, x, weight, bias)
    execution = _pick(backend, x, has_native=not torch.compiler.is_compiling())
    if execution == "native":
        return conv1d_native.causal_conv1d_step(x, weight, bias, reset, state, activation, inplace)
    if execution == "triton":
        from xlstm_rl.kernels.conv1d.triton import ops as conv1d_triton

        return conv1d_triton.causal_conv1d_step(x, weight, bias, reset, state, activation, inplace)
    run = conv1d_shifted if execution == "torch" else conv1d_reference
    y, after = run.causal_conv1d_step(x, weight, bias, reset, state)
    if inplace and state is not None:
        (after,) = _overwrite((state,), (after,))
    return F.silu(y) if activation == "silu" else y, after


def _pick(
    backend: str,
    x: Tensor,
    forget_gate: str = "sigmoid",
    head_size: int | None = None,
    has_native: bool = False,
) -> str:
    """The execution to run: that of ``backend``, or one that the transforms at work can follow.

    ``head_size`` is given where Triton's kernels hold a whole head at once.
    """
    execution = _named(backend, x, forget_gate, head_size, has_native)
    return "reference" if transforming() else execution


def _named(
    backend: str, x: Tensor, forget_gate: str, head_size: int | None, has_native: bool
) -> str:
    """The execution that ``backend`` stands for; names are checked on the way."""
    if forget_gate not in checks.FORGET_GATES:
        checks.check_choice("forget_gate", forget_gate, checks.FORGET_GATES)
    if takes_native(backend, x) and has_native:
        return "native"
    too_large = head_size is not None and head_size > MAX_HEAD_SIZE
    if backend == "auto":
        if x.device.type != "cuda" or too_large or why_not_triton(x.device, x.dtype):
            return "torch"
        return "triton"
    checks.check_choice("backend", backend, checks.BACKENDS)
    if backend == "triton":
        reason = why_not_triton(x.device, x.dtype)
        if reason is not None:
            raise RuntimeError(
                f"backend='triton' cannot run here: {reason}. Or leave backend='auto', which "
                "takes what runs"
            )
        if too_large:
            raise ValueError(
                f"head size {head_size} is over {MAX_HEAD_SIZE}, the largest that the Triton "
                "kernels hold: use more heads, or backend='torch'"
            )
    return "torch" if backend == "native" else backend  # what steps aside does so to torch


def _overwrite(state: tuple[Tensor, ...] | None, after: Any) -> Any:
    assert state is not None  # checked at the door
    try:
        return tuple(s.copy_(a) for s, a in zip(state, after, strict=True))
    except RuntimeError as error:
        if not transforming():
            raise
        raise RuntimeError(
            "inplace=True cannot overwrite a state that the transform does not know: make the "
            "state an argument of the transformed function, or leave inplace=False"
        ) from error
