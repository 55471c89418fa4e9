"""Gaussian noise on observations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from xlstm_rl.envs.arguments import json_form
from xlstm_rl.envs.spaces.leaves import Array
from xlstm_rl.envs.wrappers.own_random import OwnRandom


class ObservationNoise(OwnRandom, gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Add Gaussian noise, drawn anew at every step, to the observation.

    The observation is not clipped: where there is noise the space has no bounds.

    Args:
        env: Environment whose observations are a Box of floats.
        scale: The noise's standard deviation, in the observation's own units: one number, or one
            for each component.

    Raises:
        ValueError: The observations are not floats, or a scale is negative or of another shape.
    """

    def __init__(self, env: gym.Env[Any, Any], scale: float | Sequence[float]) -> None:
        RecordConstructorArgs.__init__(self, scale=json_form(scale))
        gym.ObservationWrapper.__init__(self, env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
            raise ValueError(f"ObservationNoise needs a Box of floats, got {space}")
        try:
            self.scale = np.broadcast_to(np.asarray(scale, dtype=np.float64), space.shape)
        except (TypeError, ValueError):
            self.scale = np.asarray(np.nan)
        if not (np.isfinite(self.scale).all() and (self.scale >= 0).all()):
            raise ValueError(
                f"scale of ObservationNoise is {scale!r}, expected a number >= 0, or one "
                f"for each component of observations of shape {space.shape}"
            )
        noisy = self.scale > 0
        low, high = np.where(noisy, -np.inf, space.low), np.where(noisy, np.inf, space.high)
        self._dtype = space.dtype.type
        self.observation_space = spaces.Box(
            low.astype(self._dtype), high.astype(self._dtype), dtype=self._dtype
        )

    def observation(self, observation: Array) -> Array:
        """Return the observation with noise, a new array."""
        noise = self.scale * self.np_random.standard_normal(self.scale.shape)
        noisy: Array = (observation + noise).astype(self._dtype)
        return noisy
