"""Noise that is a function of what the memory made, and stays the same one for several steps."""

import math

import torch
from torch import Tensor, nn

LEAST_VARIANCE = 1e-6
"""Of an action, where all features are 0."""


class StateDependentNoise(nn.Module):
    """Generalised state-dependent exploration, gSDE (Raffin et al. 2022, arXiv:2005.05719).

    The noise of an action is `f W`, where f is what the memory made, scaled by `1 / sqrt(D)`, and
    `W [D, A]` is drawn from `N(0, sigma^2)` and kept for a while: like features get like noise, so
    that an episode is explored along smooth paths. To who knows f alone the action is normal with
    the variance `sum f^2 sigma^2`; that is the density of the loss. No gradient reaches f here, so
    that the memory does not learn to be noisy.

    Args:
        width: size D of the features.
        actions: numbers A of an action.
        initial_log_std: where the log standard deviations start, for features of the size that a
            norm leaves.
    """

    def __init__(self, width: int, actions: int, initial_log_std: float) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.full((width, actions), initial_log_std))

    def log_std(self, features: Tensor) -> Tensor:
        """Return the log standard deviations `[..., A]` of actions at features `[..., D]`."""
        variance = self._scaled(features).square() @ (2.0 * self.log_sigma).exp()
        return 0.5 * (variance + LEAST_VARIANCE).log()

    def draw(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw a function for each row: `[B, D, A]`, in units of sigma."""
        shape = (rows, *self.log_sigma.shape)
        empty = torch.empty(shape, dtype=self.log_sigma.dtype, device=self.log_sigma.device)
        return empty.normal_(generator=generator)

    def noise(self, features: Tensor, drawn: Tensor) -> Tensor:
        """Return the noise `[B, A]` of functions that were drawn, at features `[B, D]`."""
        weights = self.log_sigma.exp() * drawn
        return torch.einsum("bd,bda->ba", self._scaled(features), weights)

    def _scaled(self, features: Tensor) -> Tensor:
        wide = features.detach().to(self.log_sigma.dtype)
        return wide / math.sqrt(wide.shape[-1])
