"""The six public functions: check the inputs once, pick an execution, run it."""

from torch import Tensor

from xlstm_rl.kernels import checks
from xlstm_rl.kernels.conv1d import reference as conv1d_reference
from xlstm_rl.kernels.conv1d import shifted as conv1d_shifted
from xlstm_rl.kernels.mlstm import ops as mlstm_ops
from xlstm_rl.kernels.mlstm import reference as mlstm_reference
from xlstm_rl.kernels.mlstm import step as mlstm_fast_step
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
        f: forget gate pre-activations ``[B, T, H]``.
        reset: bool ``[B, T]``, true where a step is the first of an episode: the memory before it
            is fresh. ``None``: no resets.
        state: ``(C [B, H, K, V], n [B, H, K], m [B, H])`` to start from. ``None``: zeros.
        chunk_size: the longest chunk of the chunkwise executions; changes speed, not meaning.
        forget_gate: ``"sigmoid"`` or ``"exponential"``.
        backend: ``"auto"``, ``"reference"``, ``"torch"`` or ``"triton"``.

    Returns:
        ``h [B, T, H, V]`` in the dtype of the inputs and the state after the last step, which is
        float32 for half-precision inputs. Every floating input has its exact gradient.

    Raises:
        ValueError: a shape, dtype, device, name or size that does not fit; the message says which.
        RuntimeError: a backend that cannot run here.
    """
    checks.check_mlstm(q, k, v, i, f, reset, state, "BT")
    checks.check_chunk_size(chunk_size)
    if _pick(backend, forget_gate) == "torch":
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
) -> tuple[Tensor, MLSTMState]:
    """Run one step of the mLSTM: :func:`mlstm` without the time axis.

    Args:
        q: queries ``[B, H, K]``.
        k: keys ``[B, H, K]``.
        v: values ``[B, H, V]``.
        i: input gate pre-activations ``[B, H]``.
        f: forget gate pre-activations ``[B, H]``.
        reset: bool ``[B]``, true where this step is the first of an episode.
        state: as for :func:`mlstm`; it is never written to.
        forget_gate: ``"sigmoid"`` or ``"exponential"``.
        backend: as for :func:`mlstm`.

    Returns:
        ``h [B, H, V]`` and the state after the step.

    Raises:
        ValueError: a shape, dtype, device or name that does not fit.
        RuntimeError: a backend that cannot run here.
    """
    checks.check_mlstm(q, k, v, i, f, reset, state, "B")
    if _pick(backend, forget_gate) == "torch":
        return mlstm_fast_step.mlstm_step(q, k, v, i, f, reset, state, forget_gate)
    return mlstm_reference.mlstm_step(q, k, v, i, f, reset, state, forget_gate)


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
        backend: ``"auto"``, ``"reference"``, ``"torch"`` or ``"triton"``.

    Returns:
        ``h [B, T, H, D]`` in the dtype of ``x`` and the state after the last step, which is
        float32 for half-precision inputs. Every floating input has its exact gradient.

    Raises:
        ValueError: a shape, dtype, device or name that does not fit; the message says which.
        RuntimeError: a backend that cannot run here.
    """
    checks.check_slstm(x, R, b, reset, state, "BT")
    if _pick(backend, forget_gate) == "torch":
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
) -> tuple[Tensor, SLSTMState]:
    """Run one step of the sLSTM: :func:`slstm` without the time axis.

    Args:
        x: pre-activations ``[B, 4, H, D]`` in the order i, f, z, o.
        R: recurrent weights ``[4, H, D (from), D (to)]``.
        b: biases ``[4, H, D]``.
        reset: bool ``[B]``, true where this step is the first of an episode.
        state: as for :func:`slstm`; it is never written to.
        forget_gate: ``"sigmoid"`` or ``"exponential"``.
        backend: as for :func:`slstm`.

    Returns:
        ``h [B, H, D]`` and the state after the step.

    Raises:
        ValueError: a shape, dtype, device or name that does not fit.
        RuntimeError: a backend that cannot run here.
    """
    checks.check_slstm(x, R, b, reset, state, "B")
    if _pick(backend, forget_gate) == "torch":
        return slstm_fast_step.slstm_step(x, R, b, reset, state, forget_gate)
    return slstm_reference.slstm_step(x, R, b, reset, state, forget_gate)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None = None,
    state: Tensor | None = None,
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
        backend: ``"auto"``, ``"reference"``, ``"torch"`` or ``"triton"``.

    Returns:
        ``y [B, T, C]`` and the last ``W - 1`` inputs, zero where they lie before the last reset.

    Raises:
        ValueError: a shape, dtype, device or name that does not fit; the message says which.
        RuntimeError: a backend that cannot run here.
    """
    checks.check_conv1d(x, weight, bias, reset, state, "BT")
    if _pick(backend) == "torch":
        return conv1d_shifted.causal_conv1d(x, weight, bias, reset, state)
    return conv1d_reference.causal_conv1d(x, weight, bias, reset, state)


def causal_conv1d_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None = None,
    state: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Run one step of the convolution: :func:`causal_conv1d` without the time axis.

    Args:
        x: inputs ``[B, C]``.
        weight: taps ``[C, W]``, the last one for the present step.
        bias: ``[C]`` or ``None``.
        reset: bool ``[B]``, true where this step is the first of an episode.
        state: as for :func:`causal_conv1d`; it is never written to.
        backend: as for :func:`causal_conv1d`.

    Returns:
        ``y [B, C]`` and the state after the step.

    Raises:
        ValueError: a shape, dtype, device or name that does not fit.
        RuntimeError: a backend that cannot run here.
    """
    checks.check_conv1d(x, weight, bias, reset, state, "B")
    if _pick(backend) == "torch":
        return conv1d_shifted.causal_conv1d_step(x, weight, bias, reset, state)
    return conv1d_reference.causal_conv1d_step(x, weight, bias, reset, state)


def _pick(backend: str, forget_gate: str = "sigmoid") -> str:
    """The execution that ``backend`` stands for; names are checked on the way."""
    if forget_gate not in checks.FORGET_GATES:
        checks.check_choice("forget_gate", forget_gate, checks.FORGET_GATES)
    if backend == "auto":
        return "torch"
    checks.check_choice("backend", backend, checks.BACKENDS)
    if backend == "triton":
        raise RuntimeError(
            "backend='triton' cannot run: the Triton kernels are not part of this version. "
            "Use backend='torch' (it runs on CPU and CUDA) or leave backend='auto'"
        )
    return backend
