"""What blocks around a cell are built of: norms, projections, gated feed-forward."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.autograd import transforming

NORM_EPS = 1e-5
_MERGED_BLOCK = 16  # measured: smaller blocks cost a batched matmul more than the zeros beside them


def _relu_squared(x: Tensor) -> Tensor:
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "relu^2": _relu_squared,
    "sigmoid": torch.sigmoid,
    "swish": F.silu,
    "selu": F.selu,
}
"""Of a gated feed-forward, by name; in the order of ``native/src/activation.h``."""


def block_diagonal_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply x [..., G * I] by a block-diagonal matrix of G blocks, weight [G, I, O].

    Returns:
        [..., G * O], contiguous; block g of the output is block g of the input @ weight[g].
    """
    blocks, size_in, size_out = weight.shape
    rows = x.reshape(-1, blocks * size_in)
    merge = math.gcd(max(_MERGED_BLOCK // size_in, 1), blocks)
    if merge > 1:
        weight = _merge_blocks(weight, merge)
        blocks, size_in, size_out = weight.shape
    y = torch.bmm(rows.view(-1, blocks, size_in).transpose(0, 1), weight)
    return y.transpose(0, 1).reshape(*x.shape[:-1], blocks * size_out)


def _merge_blocks(weight: Tensor, merge: int) -> Tensor:
    """Lay `merge` neighbouring blocks on the diagonal of one larger block."""
    blocks, size_in, size_out = weight.shape
    if torch.compiler.is_exporting():  # ONNX knows no scatter on a diagonal
        own = torch.eye(merge, dtype=torch.bool, device=weight.device).view(1, merge, 1, merge, 1)
        rows = weight.view(-1, merge, size_in, 1, size_out)
        return torch.where(own, rows, 0.0).view(-1, merge * size_in, merge * size_out)
    zeros = weight.new_zeros(blocks // merge, merge, size_in, merge, size_out)
    on_diagonal = weight.view(-1, merge, size_in, size_out).permute(0, 2, 3, 1)
    merged = torch.diagonal_scatter(zeros, on_diagonal, dim1=1, dim2=3)
    return merged.view(-1, merge * size_in, merge * size_out)


def layer_norm(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Normalise x [..., D] over its last axis, then scale by weight [D]."""
    if transforming():
        # a forward-mode derivative of torch's own is wrong once it is differentiated again: it
        # takes mean and deviation for constants (torch 2.13)
        centred = x - x.mean(-1, keepdim=True)
        normed = centred * (centred.square().mean(-1, keepdim=True) + NORM_EPS).rsqrt()
        return normed if weight is None else normed * weight
    return F.layer_norm(x, x.shape[-1:], weight, eps=NORM_EPS)


def head_norm(h: Tensor, weight: Tensor) -> Tensor:
    """Normalise each head of h [..., H, V] by itself and scale by weight [H * V].

    Returns:
        [..., H * V].
    """
    return layer_norm(h).flatten(-2) * weight


def gated_feed_forward(
    x: Tensor,
    up: Tensor,
    up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    activation: str,
) -> Tensor:
    """Map x [..., D] to down(activation(gate) * y); up, [2 F, D], gives gate and y."""
    gate, y = F.linear(x, up, up_bias).chunk(2, -1)
    return F.linear(ACTIVATIONS[activation](gate) * y, down, down_bias)
