"""What both blocks are built of: norms, block-diagonal projections, gated feed-forward."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlstm_rl.kernels.layers import NORM_EPS, block_diagonal_linear, head_norm, layer_norm


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


class LayerNorm(nn.LayerNorm):
    """`layer_norm` with a weight of its own and no bias."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=NORM_EPS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., D] to [..., D]."""
        return layer_norm(x, self.weight)


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
