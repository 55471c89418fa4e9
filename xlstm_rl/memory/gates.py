"""What a memory lets in and keeps at each step, to be looked at."""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import logsigmoid

from xlstm_rl.kernels.mlstm.block import MLSTMBlockOptions
from xlstm_rl.kernels.slstm.block import SLSTMBlockOptions

FORGETS_ALL = 80.0
"""The logarithm of a log decay beyond which nothing is left.

`exp(-exp(w))` stays 0 there, and `exp(w)` would overflow: 0 times infinity in the gradient.
"""


class Gates(NamedTuple):
    """The gates of a block over sequences, as natural logarithms `[B, T, H]` or `[B, T, H, D]`.

    H heads (of an LSTM or a GRU its layers), D units of a head that have gates of their own. A
    state follows `state[t] = forget[t] * state[t - 1] + input[t] * news[t]`.
    """

    input: Tensor
    """Logarithm of the input gate; an exponential one has no bound."""

    forget: Tensor
    """Logarithm of the forget gate."""


def log_gates(i: Tensor, f: Tensor, options: MLSTMBlockOptions | SLSTMBlockOptions) -> Gates:
    """Return the gates of a block from what they are before their activations."""
    return Gates(
        logsigmoid(i) if options.input_gate == "sigmoid" else i,
        logsigmoid(f) if options.forget_gate == "sigmoid" else f,
    )
