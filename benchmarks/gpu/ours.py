"""Our own contenders, by backend, with and without resets.

Each function makes the inputs once and returns functions by name that prepare a contender; what
they return runs it once. A run of a sequence is forward and backward, of a loss on h alone, and
returns h and the gradients. Names: `triton tf32` rounds products of float32 to TF32, as rivals
do; `projected` makes x from an input of the hidden size first, as an LSTM does; `, resets` has a
start of an episode at 3 % of the steps.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gpu import rivals
from gpu.device import at_precision
from gpu.timing import Run
from xlstm_rl import kernels

Setups = dict[str, Callable[[], Run]]
RESET_RATE = 0.03


def random_resets(*shape: int, device: torch.device) -> Tensor:
    """Resets at 3 % of the steps, at the first of each sequence for certain."""
    reset = torch.rand(shape, device=device) < RESET_RATE
    if len(shape) > 1:
        reset[:, 0] = True
    return reset


def _train(call: Callable[[], Tensor], xs: list[Tensor], dh: Tensor, tf32: bool = False) -> Run:
    def run() -> tuple[Tensor, ...]:
        h = call()
        return (h.detach(), *torch.autograd.grad(h, xs, dh))

    return at_precision("high", run) if tf32 else run


def mlstm(
    shape: dict[str, int], dtype: torch.dtype, device: torch.device, with_rivals: bool = True
) -> Setups:
    """The chunkwise mLSTM at `B, T, H, K, V`."""
    B, T, H, K, V = (shape[n] for n in "BTHKV")
    q, k = (torch.randn(B, T, H, K, dtype=dtype, device=device) for _ in range(2))
    v, dh = (torch.randn(B, T, H, V, dtype=dtype, device=device) for _ in range(2))
    i, f = (torch.randn(B, T, H, dtype=dtype, device=device) for _ in range(2))
    xs = [x.requires_grad_() for x in (q, k, v, i, f + 3.0)]
    reset = random_resets(B, T, device=device)

    def ours(backend: str, reset: Tensor | None, tf32: bool = False) -> Callable[[], Run]:
        return lambda: _train(lambda: kernels.mlstm(*xs, reset, backend=backend)[0], xs, dh, tf32)

    setups = {
        "triton": ours("triton", None),
        "triton, resets": ours("triton", reset),
        "torch, resets": ours("torch", reset),
    }
    if dtype is torch.float32:
        setups["triton tf32, resets"] = ours("triton", reset, tf32=True)
    if with_rivals:
        setups["mlstm_kernels"] = lambda: rivals.mlstm_kernels(xs, dh)
    return setups


def slstm(
    shape: dict[str, int], dtype: torch.dtype, device: torch.device, with_rivals: bool = True
) -> Setups:
    """The sLSTM at `B, T, H, D`, and LSTMs of the hidden size H D."""
    B, T, H, D = (shape[n] for n in "BTHD")
    make = {"dtype": dtype, "device": device}
    x = torch.randn(B, T, 4, H, D, **make)
    x[:, :, 1] += 3.0
    R = torch.randn(4, H, D, D, **make) * D**-0.5
    b = torch.zeros(4, H, D, **make)
    xs = [t.requires_grad_() for t in (x, R, b)]
    u = torch.randn(B, T, H * D, **make).requires_grad_()
    W = (torch.randn(H * D, 4 * H * D, **make) * (H * D) ** -0.5).requires_grad_()
    dh = torch.randn(B, T, H, D, **make)
    reset = random_resets(B, T, device=device)

    def ours(backend: str, reset: Tensor | None, tf32: bool = False) -> Callable[[], Run]:
        return lambda: _train(lambda: kernels.slstm(*xs, reset, backend=backend)[0], xs, dh, tf32)

    def projected(reset: Tensor | None) -> Callable[[], Run]:
        def call() -> Tensor:
            x = (u @ W).view(B, T, 4, H, D)
            return kernels.slstm(x, R, b, reset, backend="triton")[0]

        return lambda: _train(call, [u, W, R, b], dh, tf32=dtype is torch.float32)

    setups = {
        "triton": ours("triton", None),
        "triton, resets": ours("triton", reset),
        "torch, resets": ours("torch", reset),
    }
    tf32 = ""
    if dtype is torch.float32:
        tf32 = " tf32"
        setups["triton tf32, resets"] = ours("triton", reset, tf32=True)
    setups[f"triton{tf32} projected"] = projected(None)
    setups[f"triton{tf32} projected, resets"] = projected(reset)
    if with_rivals:
        flat = dh.reshape(B, T, H * D)
        setups["flashrnn"] = lambda: rivals.flashrnn(xs, dh)
        setups["torchrl lstm, resets"] = lambda: rivals.torchrl_lstm(u, reset, flat)
        setups["cudnn lstm"] = lambda: rivals.cudnn_lstm(u, None, flat)
        setups["cudnn lstm, resets"] = lambda: rivals.cudnn_lstm(u, reset, flat)
    return setups


def _step_setups(
    step: Callable[..., tuple[Tensor, object]],
    inputs: tuple[Tensor, ...],
    fresh_state: Callable[[], object],
    reset: Tensor,
) -> Setups:
    """A step in place, each contender on a state of its own."""

    def ours(backend: str, reset: Tensor | None) -> Callable[[], Run]:
        def setup() -> Run:
            state = fresh_state()

            @torch.no_grad()
            def run() -> tuple[Tensor]:
                h, _ = step(*inputs, reset, state, backend=backend, inplace=True)
                return (h,)

            return run

        return setup

    return {
        "triton": ours("triton", None),
        "triton, resets": ours("triton", reset),
        "torch, resets": ours("torch", reset),
    }


def mlstm_step(shape: dict[str, int], dtype: torch.dtype, device: torch.device) -> Setups:
    """One step of the mLSTM at `B, H, K, V`."""
    B, H, K, V = (shape[n] for n in "BHKV")
    make = {"dtype": dtype, "device": device}
    inputs = (
        *(torch.randn(B, H, n, **make) for n in (K, K, V)),
        torch.randn(B, H, **make),
        torch.randn(B, H, **make) + 3.0,
    )

    def fresh() -> tuple[Tensor, ...]:
        return tuple(torch.zeros(s, device=device) for s in ((B, H, K, V), (B, H, K), (B, H)))

    return _step_setups(kernels.mlstm_step, inputs, fresh, random_resets(B, device=device))


def slstm_step(shape: dict[str, int], dtype: torch.dtype, device: torch.device) -> Setups:
    """One step of the sLSTM at `B, H, D`."""
    B, H, D = (shape[n] for n in "BHD")
    make = {"dtype": dtype, "device": device}
    x = torch.randn(B, 4, H, D, **make)
    x[:, 1] += 3.0
    inputs = (x, torch.randn(4, H, D, D, **make) * D**-0.5, torch.zeros(4, H, D, **make))

    def fresh() -> tuple[Tensor, ...]:
        return tuple(torch.zeros(B, H, D, device=device) for _ in range(4))

    return _step_setups(kernels.slstm_step, inputs, fresh, random_resets(B, device=device))


def conv_step(shape: dict[str, int], dtype: torch.dtype, device: torch.device) -> Setups:
    """One step of the convolution with SiLU at `B, C, W`."""
    B, C, W = (shape[n] for n in "BCW")
    make = {"dtype": dtype, "device": device}
    inputs = tuple(torch.randn(s, **make) for s in ((B, C), (C, W), (C,)))

    def step(*args: object, **kwargs: object) -> tuple[Tensor, object]:
        return kernels.causal_conv1d_step(*args, activation="silu", **kwargs)  # type: ignore

    def fresh() -> Tensor:
        return torch.zeros(B, W - 1, C, **make)

    return _step_setups(step, inputs, fresh, random_resets(B, device=device))
