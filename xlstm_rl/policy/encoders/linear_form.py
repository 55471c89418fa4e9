"""The first layer of an encoder as one matrix: vectors side by side, choices as one-hot codes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from xlstm_rl.kernels.native.held import NotCoveredError
from xlstm_rl.kernels.native.joined import JoinedWeights, PartWeights
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.dense import linear_layers
from xlstm_rl.policy.encoders.encoder import DiscreteEncoder, JoinedEncoder, MultiDiscreteEncoder

MOST_INPUTS = 512
"""Codes of more numbers cost more than looking an embedding up: of 512 they save 6 % of a training,
of 1,024 they cost 22 % (measured)."""


class _Leaf(NamedTuple):
    """A part of the observation."""

    name: str | None
    """None: the observation has no parts."""
    size: int
    """Numbers of it that are read."""
    holder: nn.Module
    """Of its weights."""
    is_choice: bool
    """Whether it is made of choices, not of numbers."""
    offsets: Tensor | None
    """Where the code of each choice begins `[choices]`; None: there is one."""


class LinearForm(JoinedWeights):
    """What an encoder of vectors and choices does first: `[..., in_features]` to `[..., width]`.

    Raises:
        NotCoveredError: a part of the encoder is something else, or is made of other weights.
    """

    def __init__(self, encoder: nn.Module) -> None:
        """Take a JoinedEncoder, or the encoder of one space of choices."""
        names: Sequence[str | None] = [None]
        encoders, scale = [encoder], None
        if type(encoder) is JoinedEncoder:
            names, encoders, scale = encoder.names, [*encoder.encoders], encoder.scale
        leaves = [_leaf(name, one) for name, one in zip(names, encoders, strict=True)]
        self.in_features = sum(one.size for one in leaves)
        if self.in_features > MOST_INPUTS:
            raise NotCoveredError
        parts = [PartWeights(*_own(one), one.is_choice) for one in leaves]
        super().__init__(encoder, parts, scale)
        self._leaves, self._scale = leaves, scale

    @property
    def vectors(self) -> list[str | None]:
        """The names of what it reads; nothing: a part of it is a choice."""
        is_one = all(not leaf.is_choice for leaf in self._leaves)
        return [leaf.name for leaf in self._leaves] if is_one else []

    def own_weights(self) -> list[Tensor]:
        """Return the encoder's own weights, in the order of `gradients`."""
        return [own for leaf in self._leaves for own in _own(leaf) if own is not None]

    def features(self, observation: Observation) -> Tensor:
        """Return an observation as one vector, `[..., in_features]`."""
        found: list[Tensor] = []
        for leaf in self._leaves:
            x = observation if isinstance(observation, Tensor) else observation[str(leaf.name)]
            if leaf.is_choice:
                at = x.unsqueeze(-1) if leaf.offsets is None else x + leaf.offsets
                x = self.weight.new_zeros(*at.shape[:-1], leaf.size).scatter_(-1, at.long(), 1.0)
            found.append(x)
        return found[0] if len(found) == 1 else torch.cat(found, -1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[..., width]` for features `[..., in_features]`, in the encoder's own weights."""
        weights, biases = [], []
        for leaf in self._leaves:
            weight, bias = _own(leaf)
            weights.append(weight if not leaf.is_choice else weight.t())
            biases += [] if bias is None else [bias]
        y = linear(x, torch.cat(weights, 1), sum(biases) if biases else None)
        return y if self._scale is None else y * self._scale


def _leaf(name: str | None, encoder: nn.Module) -> _Leaf:
    if type(encoder) is nn.Linear:
        return _Leaf(name, encoder.in_features, encoder, False, None)
    if type(encoder) is DiscreteEncoder and type(encoder.embedding) is nn.Embedding:
        return _Leaf(name, encoder.embedding.num_embeddings, encoder.embedding, True, None)
    if type(encoder) is MultiDiscreteEncoder and type(encoder.embedding) is nn.Embedding:
        size, offsets = encoder.embedding.num_embeddings, encoder.offsets
        return _Leaf(name, size, encoder.embedding, True, offsets)
    raise NotCoveredError


def _own(leaf: _Leaf) -> tuple[Any, Any]:
    """Return the weight and the bias of a leaf as they are now."""
    held = leaf.holder._parameters
    if held.get("weight") is None:  # it is made of others
        raise NotCoveredError
    return held["weight"], held.get("bias")


Encoder = tuple[list[tuple[Any, str]], LinearForm | None]
"""Linear layers, each with the name of its activation; the first one, if it is a `LinearForm`."""


def encoder_layers(encoder: nn.Module | None) -> Encoder | None:
    """Return an encoder as linear layers in a row; None: it is something else."""
    if encoder is None:
        return None
    plain = linear_layers(encoder)
    if plain is not None:
        return plain, None
    try:
        form = LinearForm(encoder[0] if isinstance(encoder, nn.Sequential) else encoder)
    except NotCoveredError:
        return None
    layers = linear_layers(behind(form, encoder), (nn.Linear, LinearForm))
    return None if layers is None else (layers, form)


def behind(form: LinearForm, encoder: nn.Module) -> nn.Sequential:
    """Return an encoder with a form in the place of its first layer."""
    return nn.Sequential(form, *([*encoder][1:] if isinstance(encoder, nn.Sequential) else []))
