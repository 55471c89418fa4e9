"""A wrapper whose random numbers are its own.

The wrapped environment then does what it would do without the wrapper.
"""

from __future__ import annotations

import zlib
from typing import Any

import gymnasium as gym
import numpy as np


class OwnRandom(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper with a random generator of its own, `np_random`, seeded by `reset(seed=)`.

    Its stream follows from the seed, the wrapper's class and how many wrappers are beneath it:
    two wrappers around one environment draw different numbers.
    """

    _own_random: np.random.Generator | None = None

    @property
    def np_random(self) -> np.random.Generator:
        """The wrapper's generator, not the environment's."""
        if self._own_random is None:
            self._own_random = np.random.default_rng()
        return self._own_random

    @np_random.setter
    def np_random(self, value: np.random.Generator) -> None:
        self._own_random = value

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; a seed is also handed on to the environment."""
        if seed is not None:
            depth, beneath = 0, self.env
            while isinstance(beneath, gym.Wrapper):
                depth, beneath = depth + 1, beneath.env
            own = zlib.crc32(type(self).__name__.encode())
            self.np_random = np.random.default_rng([seed, own, depth])
        return super().reset(seed=seed, options=options)
