"""Activations of encoders and heads, by the names that the configuration gives them."""

from torch import Tensor, nn

from xlstm_rl.kernels.native.tanh import tanh


class Tanh(nn.Tanh):
    """`nn.Tanh`, natively where that runs."""

    def forward(self, x: Tensor) -> Tensor:
        """Return tanh of a tensor of any shape."""
        return tanh(x)


ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": Tanh, "relu": nn.ReLU, "silu": nn.SiLU}
