"""What a loss asks of the actions of a minibatch, of whatever kind they are."""

from torch import Tensor

Terms = tuple[Tensor, Tensor, Tensor | None]
"""Log-probability, entropy, and the mean log-probability of all choices if asked, ``[...]`` each.
"""
