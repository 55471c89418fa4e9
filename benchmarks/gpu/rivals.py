"""Published kernels beside ours, where they are installed; imported, never required.

Each function takes what it differentiates with respect to and the gradient of h, and returns a run
of forward and backward. Inputs are laid out beforehand as a rival wants them, so that it has no
transposes to pay for. What is not installed or does not run raises, and the report says why.
"""

import torch
from torch import Tensor, nn

from gpu.timing import Run


def mlstm_kernels(xs: list[Tensor], dh: Tensor) -> Run:
    """The XL chunk kernel of `mlstm_kernels`, without resets (it has none)."""
    from mlstm_kernels.torch.chunkwise.triton_xl_chunk import mlstm_chunkwise__xl_chunk

    heads_first = [x.detach().transpose(1, 2).contiguous().requires_grad_() for x in xs]
    grad = dh.transpose(1, 2).contiguous()
    length = dh.shape[1]

    def run() -> object:
        h = mlstm_chunkwise__xl_chunk(
            *heads_first,
            chunk_size=min(128, length),  # its default
            autocast_kernel_dtype=dh.dtype,
        )
        return torch.autograd.grad(h, heads_first, grad)

    return run


def flashrnn(xs: list[Tensor], dh: Tensor) -> Run:
    """FlashRNN's sLSTM, fused over time in Triton, without resets (it has none).

    It hands out all four states; the gradient of all is made beforehand.
    """
    from flashrnn.flashrnn.triton_fused.fwbw import slstm_tr_fwbw

    x, R, b = (t.detach() for t in xs)
    B, T, _, H, D = x.shape
    if D > 64:
        raise ValueError(f"its documentation limits heads to 64, this one has {D}")
    inputs = [x.clone(), R.transpose(2, 3).contiguous(), b.clone()]  # R is (to, from) there
    for t in inputs:
        t.requires_grad_()
    states = x.new_zeros(4, B, H, D)
    grad = x.new_zeros(T, 4, B, H, D)
    grad[:, 0] = dh.transpose(0, 1)
    name = str(x.dtype).removeprefix("torch.")

    def run() -> object:
        h, _ = slstm_tr_fwbw(states, *inputs, autocast_kernel_dtype=name)
        return torch.autograd.grad(h, inputs, grad)

    return run


def torchrl_lstm(u: Tensor, reset: Tensor, dh: Tensor) -> Run:
    """TorchRL's Triton LSTM with resets and its input projection; float32 products are TF32.

    As its documentation asks, inputs and weights are float32 in every case, and bfloat16 is the
    type of the recurrent products alone.
    """
    from torchrl.modules.tensordict_module._rnn_triton import lstm_triton

    x, grad = u.detach().float().requires_grad_(), dh.float()
    width = x.shape[-1]
    weights = list(nn.LSTM(width, width, batch_first=True).to(x).parameters())
    # the states that each reset restarts from, step by step, as the module hands them over
    h, c = (torch.zeros_like(x) for _ in range(2))

    def run() -> object:
        y = lstm_triton(x, h, c, *weights, reset, compute_dtype=u.dtype, input_precision="tf32")[0]
        return torch.autograd.grad(y, [x, *weights], grad)

    return run


def cudnn_lstm(u: Tensor, reset: Tensor | None, dh: Tensor) -> Run:
    """`torch.nn.LSTM`; with resets the episodes are cut apart and packed, as cuDNN wants them.

    Where the episodes begin is looked up beforehand, so only the gathering is paid for.
    """
    width = u.shape[-1]
    lstm = nn.LSTM(width, width, batch_first=True).to(u)
    xs = [u, *lstm.parameters()]
    if reset is None:
        return lambda: torch.autograd.grad(lstm(u)[0], xs, dh)
    index, sizes = packed_order(reset)

    def run() -> object:
        packed = nn.utils.rnn.PackedSequence(u.flatten(0, 1)[index], sizes)
        out = lstm(packed)[0].data
        y = torch.empty_like(dh).flatten(0, 1).index_copy(0, index, out).view_as(dh)
        return torch.autograd.grad(y, xs, dh)

    return run


def packed_order(reset: Tensor) -> tuple[Tensor, Tensor]:
    """Where in `[B * T]` the elements of the packed episodes lie, and how many run at each step.

    `reset [B, T]`. Episodes are ordered from the longest to the shortest.
    """
    starts = reset.cpu().clone()
    starts[:, 0] = True
    first = starts.flatten().nonzero()[:, 0]
    lengths = torch.diff(first, append=torch.tensor([starts.numel()]))
    lengths, order = lengths.sort(descending=True)
    first = first[order]
    steps = range(int(lengths[0]))
    sizes = torch.searchsorted(-lengths, -torch.arange(len(steps)))  # episodes longer than t
    index = torch.cat([first[:size] + t for t, size in zip(steps, sizes.tolist(), strict=True)])
    return index.to(reset.device), sizes
