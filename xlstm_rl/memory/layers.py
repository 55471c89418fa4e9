"""What both blocks are built of: norm, gated feed-forward, initial weights."""

import math
from typing import Any

from torch import Tensor, nn

from xlstm_rl.kernels.layers import NORM_EPS, gated_feed_forward, layer_norm


def parameter(module: Any, name: str) -> Any:
    """Return a parameter by its name: a third of the time of an attribute, and acting has many."""
    try:
        return module._parameters[name]
    except KeyError:  # computed, as parametrizations do
        return getattr(module, name)


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
        self.activation = activation
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
        up, down = self.up, self.down
        return gated_feed_forward(x, up.weight, up.bias, down.weight, down.bias, self.activation)


def small_init_(weight: Tensor, width: int) -> None:
    """Draw from N(0, 2 / (5 width)) (Nguyen & Salazar 2019, "Transformers without Tears")."""
    nn.init.normal_(weight, std=math.sqrt(2 / (5 * width)))


def output_init_(weight: Tensor, width: int, num_blocks: int) -> None:
    """Draw from N(0, (2 / (L sqrt(width)))^2), for projections into the residual stream."""
    nn.init.normal_(weight, std=2 / num_blocks / math.sqrt(width))


def conv_init_(weight: Tensor, bias: Tensor) -> None:
    """Draw taps [C, W] and bias [C] from U(-1/sqrt(W), 1/sqrt(W)), as torch's Conv1d does.

    Of more than four the last four are drawn as if there were no others, and those start at 0: the
    mean of many steps, each with a weight of its own, is no good start for control.
    """
    drawn = min(weight.shape[1], 4)
    bound = drawn**-0.5
    nn.init.zeros_(weight)
    nn.init.uniform_(weight.detach()[:, -drawn:], -bound, bound)
    nn.init.uniform_(bias, -bound, bound)
