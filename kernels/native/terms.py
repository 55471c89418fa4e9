"""What a loss asks of the actions of a minibatch, of whatever kind they are."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

Terms = tuple[Tensor, Tensor, Tensor | None]
"""Log-probability, entropy, and the mean log-probability of all choices if asked, ``[...]`` each.
"""


class LossPass(NamedTuple):
    """The terms and the way back, without a graph of torch's."""

    terms: Terms
    backward: Callable[..., Tensor]
    """Returns the gradient of the distribution's parameters from those of the terms, ``None`` where
    there is none."""
