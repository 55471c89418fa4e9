"""Encoders of images: the convolutions of Nature DQN, and the residual ones of IMPALA."""

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from xlstm_rl.policy.config import PolicyConfig

_NATURE_SMALLEST = 36  # its three convolutions leave nothing of a smaller image
_IMPALA_CHANNELS = (16, 32, 32)


class ImageEncoder(nn.Module):
    """Scales uint8 images by their upper bound and encodes them: `[..., *shape]` to `[..., width]`.

    The layout is that of the space: `[H, W, C]`, `[C, H, W]` or `[H, W]`. With `auto` the
    shorter one of the first and the last axis is that of the channels.

    Raises:
        ValueError: the image is too small for the encoder that was asked for.
    """

    def __init__(self, space: gymnasium.Space[Any], width: int, config: PolicyConfig) -> None:
        super().__init__()
        self.shape = tuple(space.shape or ())
        self.channels_last = len(self.shape) == 3 and _is_channels_last(self.shape, config)
        height, breadth, channels = _sizes(self.shape, self.channels_last)
        # 1 / 255 for a camera; an image of few levels would be all but black with it
        self.scale = 1.0 / max(1.0, float(np.max(getattr(space, "high", 255))))
        self.is_small = small = min(height, breadth) < _NATURE_SMALLEST
        kind = config.image_encoder
        if kind == "auto":
            kind = "impala" if small else "nature"
        if kind == "nature" and small:
            raise ValueError(
                f"policy.image_encoder='nature' needs images of {_NATURE_SMALLEST} x "
                f"{_NATURE_SMALLEST} or more, got {height} x {breadth} of {space}: use 'impala', "
                "or set policy.image_layout if that is not their size"
            )
        self.kind = kind
        if kind == "flat":
            self.convolutions = nn.Sequential(nn.Flatten())
            hidden = None
        else:
            nature = kind == "nature"
            self.convolutions = _nature(channels) if nature else _impala(channels)
            hidden = 512 if nature else 256
        with torch.no_grad():
            size = self.convolutions(torch.zeros(1, channels, height, breadth)).shape[-1]
        layers: list[nn.Module] = []
        if hidden is not None:
            layers = [_orthogonal(nn.Linear(size, hidden)), nn.ReLU()]
        layers.append(_orthogonal(nn.Linear(hidden or size, width)))
        self.projection = nn.Sequential(*layers)

    def forward(self, observation: Tensor) -> Tensor:
        """Return `[..., width]` for images `[..., *shape]`."""
        batch = observation.shape[: observation.ndim - len(self.shape)]
        images = observation.reshape(-1, *self.shape)
        if self.channels_last:
            images = images.permute(0, 3, 1, 2)
        elif len(self.shape) == 2:
            images = images.unsqueeze(1)
        weight = next(self.projection.parameters())
        features = self.convolutions(images.to(weight.dtype) * self.scale)
        out: Tensor = self.projection(features)
        return out.reshape(*batch, out.shape[-1])


def _is_channels_last(shape: tuple[int, ...], config: PolicyConfig) -> bool:
    if config.image_layout == "auto":
        return shape[-1] <= shape[0]
    return config.image_layout == "hwc"


def _sizes(shape: tuple[int, ...], channels_last: bool) -> tuple[int, int, int]:
    """Return height, width and number of channels."""
    if len(shape) == 2:
        return shape[0], shape[1], 1
    height, width, channels = shape if channels_last else (*shape[1:], shape[0])
    return height, width, channels


def _nature(channels: int) -> nn.Sequential:
    """Three convolutions (Mnih et al. 2015, doi:10.1038/nature14236)."""
    return nn.Sequential(
        _orthogonal(nn.Conv2d(channels, 32, 8, 4)),
        nn.ReLU(),
        _orthogonal(nn.Conv2d(32, 64, 4, 2)),
        nn.ReLU(),
        _orthogonal(nn.Conv2d(64, 64, 3, 1)),
        nn.ReLU(),
        nn.Flatten(),
    )


def _impala(channels: int) -> nn.Sequential:
    """Three residual stages (Espeholt et al. 2018, arXiv:1802.01561, figure 3, right)."""
    layers: list[nn.Module] = []
    for out in _IMPALA_CHANNELS:
        layers += [
            _orthogonal(nn.Conv2d(channels, out, 3, padding=1), 1.0),
            nn.MaxPool2d(3, 2, padding=1),
            Residual(out),
            Residual(out),
        ]
        channels = out
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten())


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(),
            _orthogonal(nn.Conv2d(channels, channels, 3, padding=1)),
            nn.ReLU(),
            _orthogonal(nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `x + branch(x)`, `[N, C, H, W]`."""
        out: Tensor = x + self.branch(x)
        return out


def _orthogonal(layer: nn.Linear | nn.Conv2d, gain: float = 2.0**0.5) -> nn.Module:
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
