"""Blank observations: spaces that contain one, and the blank itself."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


def with_blank(space: gym.Space[Any]) -> gym.Space[Any]:
    """Return the space widened by a blank.

    Raises:
        ValueError: The space is neither Box nor Discrete.
    """
    if isinstance(space, spaces.Box):
        zero = space.dtype.type(0)
        low, high = np.minimum(space.low, zero), np.maximum(space.high, zero)
        return spaces.Box(low, high, dtype=space.dtype.type)
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n) + 1, start=int(space.start))
    raise ValueError(f"a blank observation needs a Box or Discrete space, got {space}")


def blank_of(space: gym.Space[Any]) -> Any:
    """Return a blank of a space that `with_blank` widened, a new one."""
    if isinstance(space, spaces.Discrete):
        return space.start + space.n - 1
    return np.zeros(space.shape or (), dtype=space.dtype)
