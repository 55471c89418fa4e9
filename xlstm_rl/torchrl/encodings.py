"""Choices as TorchRL's environments have them, one-hot or as indices."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import one_hot

from xlstm_rl.policy.arrays import as_tensor


def decode_observation(space: gymnasium.Space[Any], value: Tensor) -> Tensor:
    """Return observations `[B, ...]` of a leaf as the space has them.

    Args:
        space: without parts.
        value: as the space has them, or choices one-hot: `[B, n]` for Discrete, `[B, k, n]` or
            `[B, n_1 + ... + n_k]` for MultiDiscrete; `[B, ..., n]` for a table of equal counts.
    """
    if isinstance(space, spaces.Discrete) and value.shape[1:] == (space.n,):
        return value.to(torch.uint8).argmax(-1) + int(space.start)
    if isinstance(space, spaces.MultiDiscrete) and value.shape[1:] == one_hot_shape(space.nvec):
        start, value = as_tensor(space.start).to(value.device), value.to(torch.uint8)
        if value.dim() > 2:
            return value.argmax(-1) + start
        parts = value.split(space.nvec.tolist(), 1)
        return torch.stack([part.argmax(-1) for part in parts], 1) + start
    return value


def encode_action(space: gymnasium.Space[Any], action: Tensor, categorical: bool) -> Tensor:
    """Return actions `[B, ...]` of the space as an environment of TorchRL takes them.

    Args:
        space: without parts.
        action: as the space has them.
        categorical: choices stay indices, otherwise they become one-hot: `[B, n]` for Discrete;
            for MultiDiscrete `[B, ..., n]` where all counts are equal, else `[B, n_1 + ... + n_k]`.
    """
    if isinstance(space, spaces.Discrete):
        index = action.long() - int(space.start)
        return index if categorical else one_hot(index, int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        index = action.long() - as_tensor(space.start).long().to(action.device)
        if categorical:
            return index
        counts = space.nvec
        if one_hot_shape(counts) != (int(counts.sum()),):
            return one_hot(index, int(counts.flat[0]))
        parts = [one_hot(index[:, i], count) for i, count in enumerate(counts.tolist())]
        return torch.cat(parts, 1)
    return action


def one_hot_shape(counts: np.ndarray) -> tuple[int, ...] | None:
    """Return the shape of choices one-hot, without the batch dimension.

    Args:
        counts: the number of each choice, of any number of dimensions.

    Returns:
        None: TorchRL has no form for them, a table of different counts.
    """
    first = int(counts.flat[0])
    if (counts == first).all():
        return (*counts.shape, first)
    return (int(counts.sum()),) if counts.ndim == 1 else None
