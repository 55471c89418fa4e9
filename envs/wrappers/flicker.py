"""Observations that are blank from time to time."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from xlstm_rl.envs.wrappers.blank import blank_of, with_blank
from xlstm_rl.envs.wrappers.own_random import OwnRandom
from xlstm_rl.options.arguments import plain_number


class Flicker(OwnRandom, gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Blank each observation, an episode's first one too, with a given probability.

    As in the flickering Atari games of Hausknecht and Stone, 2015 (arXiv:1507.06527). A blank is
    all zeros, which a Box is widened to contain; Discrete observations get one further value for
    it.

    Args:
        env: Environment with Box or Discrete observations.
        probability: Of a blank, 0 to 1.

    Raises:
        ValueError: The probability is none, or observations of this kind have no blank.
    """

    def __init__(self, env: gym.Env[Any, Any], probability: float) -> None:
        number = plain_number(probability)
        RecordConstructorArgs.__init__(self, probability=number)
        gym.ObservationWrapper.__init__(self, env)
        if number is None or not 0 <= number <= 1:
            raise ValueError(
                f"probability of Flicker is {probability!r}, expected a number from 0 to 1"
            )
        self.probability = number
        self.observation_space = with_blank(env.observation_space)

    def observation(self, observation: Any) -> Any:
        """Return the observation or a blank."""
        blank = self.np_random.random() < self.probability
        return blank_of(self.observation_space) if blank else observation
