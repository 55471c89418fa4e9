"""Encoders: from an observation to the memory's input."""

import math
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from xlstm_rl.envs.spaces.leaves import is_nested, observation_kind, space_leaves
from xlstm_rl.envs.spaces.support import describe_space
from xlstm_rl.options.section import refuse_unused
from xlstm_rl.policy.activations import ACTIVATIONS
from xlstm_rl.policy.auxiliary.inputs import OBSERVATION
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.dense import MLP
from xlstm_rl.policy.encoders.images import ImageEncoder
from xlstm_rl.policy.encoders.own import OwnEncoder, WithAuxiliary
from xlstm_rl.policy.encoders.scaled_sum import ScaledSum


def make_mlp(sizes: list[int], activation: str) -> MLP:
    """Return Linear layers of the given sizes, each with its activation behind it.

    Weights are orthogonal with gain sqrt(2), biases zero: the initialisation whose effect on PPO
    was measured by Andrychowicz et al. 2021 (arXiv:2006.05990).
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [orthogonal(nn.Linear(fan_in, fan_out), 2.0**0.5), ACTIVATIONS[activation]()]
    return MLP(*layers)


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


def _beside(auxiliary: Mapping[str, int], width: int, gain: float) -> dict[str, nn.Module]:
    """Return the layers that meet what stands beside the observation."""
    return {name: _first_layer(size, width, gain) for name, size in auxiliary.items()}


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


class MultiDiscreteEncoder(nn.Module):
    """Embeds k indices `[..., k]` as `[..., width]`: a Linear layer on their one-hot codes."""

    offsets: Tensor

    def __init__(self, counts: list[int], width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sum(counts), width)
        # the variance of the sum is that of one embedding
        nn.init.orthogonal_(self.embedding.weight, (2.0 / len(counts)) ** 0.5)
        offsets = torch.tensor([0, *accumulate(counts[:-1])])
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, observation: Tensor) -> Tensor:
        """Return `[..., width]` for indices `[..., k]`."""
        out: Tensor = self.embedding(observation + self.offsets).sum(-2)
        return out


class JoinedEncoder(ScaledSum):
    """One encoder per leaf, their outputs `[..., width]` summed.

    For encoders that are linear this is the linear layer on all leaves side by side.
    """

    def __init__(self, encoders: dict[str, nn.Module]) -> None:
        super().__init__(encoders)
        self.names = list(encoders)
        self.encoders = nn.ModuleList(encoders.values())

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return `[..., width]` for tensors by the leaf's name."""
        pairs = zip(self.names, self.encoders, strict=True)
        parts = [encoder(observation[name]) for name, encoder in pairs]
        out: Tensor = parts[0]
        for part in parts[1:]:
            out = out + part
        return out * self.scale


def make_encoder(
    space: gymnasium.Space[Any],
    width: int,
    config: PolicyConfig,
    auxiliary: Mapping[str, int] | None = None,
) -> nn.Module:
    """Return a module from observations, as the normaliser hands them on, to `[..., width]`.

    Args:
        space: of one environment.
        width: of what goes into the memory.
        config: the layers.
        auxiliary: names and lengths of the vectors that stand beside the observation in a mapping;
            None: an observation that has no parts comes as a bare tensor.

    Raises:
        ValueError: the space, or a part of it, has no encoder.
    """
    if config.encoder != "auto":
        own = OwnEncoder(space, width, config)
        if auxiliary is None:
            return own
        return WithAuxiliary(own, _beside(auxiliary, width, 1.0))
    gain = 2.0**0.5 if config.encoder_layers else 1.0
    leaves = space_leaves(space, config.mask_in_observation)
    if not any(observation_kind(leaf.space) == "image" for leaf in leaves):
        owner = f"images, but the observation has none: {describe_space(space)}"
        refuse_unused(config, ("image_encoder", "image_layout"), owner)
    if is_nested(space) or auxiliary is not None:
        encoders = {
            leaf.name or OBSERVATION: _leaf_encoder(leaf.space, width, gain, config)
            for leaf in leaves
        }
        first: nn.Module = JoinedEncoder(encoders | _beside(auxiliary or {}, width, gain))
    else:
        first = _leaf_encoder(space, width, gain, config)
    if config.encoder_layers == 0:
        return first
    rest = make_mlp([width] * config.encoder_layers, config.activation)
    return MLP(first, ACTIVATIONS[config.activation](), *rest)


def _leaf_encoder(
    space: gymnasium.Space[Any], width: int, gain: float, config: PolicyConfig
) -> nn.Module:
    """Return the encoder of a space without parts, to `[..., width]`: its last layer is linear."""
    if observation_kind(space) == "image":
        return ImageEncoder(space, width, config)
    if isinstance(space, gymnasium.spaces.Discrete):
        return DiscreteEncoder(int(space.n), width)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return MultiDiscreteEncoder(space.nvec.ravel().tolist(), width)
    if isinstance(space, gymnasium.spaces.Box | gymnasium.spaces.MultiBinary):
        return _first_layer(math.prod(space.shape), width, gain)
    raise ValueError(
        f"observation space {space}: expected Box, Discrete, MultiDiscrete, MultiBinary, or Dict "
        "or Tuple of these"
    )
