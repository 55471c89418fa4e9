"""Encoders: from an observation to the memory's input."""

import math
from itertools import pairwise
from typing import Any

import gymnasium
from torch import Tensor, nn

from xlstm_rl.policy.config import PolicyConfig

_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}


def make_mlp(sizes: list[int], activation: str) -> nn.Sequential:
    """Return Linear layers of the given sizes, each with its activation behind it.

    Weights are orthogonal with gain sqrt(2), biases zero: the initialisation whose effect on PPO
    was measured by Andrychowicz et al. 2021 (arXiv:2006.05990).
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [orthogonal(nn.Linear(fan_in, fan_out), 2.0**0.5), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


def orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    """Initialise a layer with an orthogonal weight of the given gain and a zero bias."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def _first_layer(size: int, width: int, gain: float) -> nn.Linear:
    """Return the layer that meets the observation, with biases drawn from U(-1, 1).

    The memory normalises its input over the features. With zero biases a small observation and a
    larger one of the same direction would look alike behind that; biases of the size of a
    normalised observation keep its magnitude visible.
    """
    layer = orthogonal(nn.Linear(size, width), gain)
    nn.init.uniform_(layer.bias, -1.0, 1.0)
    return layer


class DiscreteEncoder(nn.Module):
    """Embeds indices `[...]` as `[..., width]`: a Linear layer on their one-hot codes."""

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n, width)
        nn.init.orthogonal_(self.embedding.weight, 2.0**0.5)

    def forward(self, observation: Tensor) -> Tensor:
        """Return `[..., width]` for indices `[...]`."""
        out: Tensor = self.embedding(observation)
        return out


def make_encoder(space: gymnasium.Space[Any], width: int, config: PolicyConfig) -> nn.Module:
    """Return a module from observations, as the normaliser hands them on, to `[..., width]`.

    Raises:
        ValueError: the space is neither Box nor Discrete.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        first: nn.Module = DiscreteEncoder(int(space.n), width)
    elif isinstance(space, gymnasium.spaces.Box):
        gain = 2.0**0.5 if config.encoder_layers else 1.0
        first = _first_layer(math.prod(space.shape), width, gain)
    else:
        raise ValueError(f"observation space {space}: expected Box or Discrete")
    if config.encoder_layers == 0:
        return first
    rest = make_mlp([width] * config.encoder_layers, config.activation)
    return nn.Sequential(first, _ACTIVATIONS[config.activation](), *rest)
