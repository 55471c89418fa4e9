"""What both blocks are built of: block-diagonal projections, head norm, gated feed-forward."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def untouched(*modules: nn.Module) -> bool:
    """Whether calling the modules is nothing but their own code on their weights: no hooks."""
    return not torch.nn.modules.module._has_any_global_hook() and all(
        type(m) in _OWN
        and not (
            m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        )
        for m in modules
    )


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


class LayerNorm(nn.LayerNorm):
    """`layer_norm` with a weight of its own and no bias."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=NORM_EPS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., D] to [..., D]."""
        return layer_norm(x, self.weight)


def head_norm(h: Tensor, weight: Tensor) -> Tensor:
    """Normalise each head of h [..., H, V] by itself and scale by weight [H * V].

    Returns:
        [..., H * V].
    """
    return layer_norm(h).flatten(-2) * weight


class GatedFeedForward(nn.Module):
    """A gated feed-forward [..., D] -> [..., D]: down(activation(gate(x)) * up(x))."""

    def __init__(
        self, width: int, hidden_width: int, activation: str, bias: bool, num_blocks: int
    ) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden_width, bias=bias)
        self.down = nn.Linear(hidden_width, width, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.num_blocks = num_blocks
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights, as published."""
        small_init_(self.up.weight, self.up.in_features)
        output_init_(self.down.weight, self.down.out_features, self.num_blocks)
        for bias in (self.up.bias, self.down.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., D] to [..., D]."""
        gate, up = self.up(x).chunk(2, -1)
        y: Tensor = self.down(self.activation(gate) * up)
        return y


_OWN = {LayerNorm, GatedFeedForward, nn.Linear}


def small_init_(weight: Tensor, width: int) -> None:
    """Draw from N(0, 2 / (5 width)) (Nguyen & Salazar 2019, "Transformers without Tears")."""
    nn.init.normal_(weight, std=math.sqrt(2 / (5 * width)))


def output_init_(weight: Tensor, width: int, num_blocks: int) -> None:
    """Draw from N(0, (2 / (L sqrt(width)))^2), for projections into the residual stream."""
    nn.init.normal_(weight, std=2 / num_blocks / math.sqrt(width))


def conv_init_(weight: Tensor, bias: Tensor) -> None:
    """Draw taps [C, W] and bias [C] from U(-1/sqrt(W), 1/sqrt(W)), as torch's Conv1d does."""
    bound = weight.shape[1] ** -0.5
    nn.init.uniform_(weight, -bound, bound)
    nn.init.uniform_(bias, -bound, bound)
