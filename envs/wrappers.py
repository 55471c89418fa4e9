"""Wrappers that make a task harder to see: blanks, noise, delay and a cue at a random moment.

Each is a Gymnasium wrapper for one environment. The random ones draw from a generator of their
own, so that the wrapped environment does what it would do without them.
"""

from __future__ import annotations

import copy
import zlib
from collections import deque
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from xlstm_rl.envs.arguments import check_whole
from xlstm_rl.envs.values import Array

AnyEnv = gym.Env[Any, Any]


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

    def __init__(self, env: AnyEnv, probability: float) -> None:
        RecordConstructorArgs.__init__(self, probability=probability)
        gym.ObservationWrapper.__init__(self, env)
        if not _is_number(probability) or not 0 <= probability <= 1:
            raise ValueError(
                f"probability of Flicker is {probability!r}, expected a number from 0 to 1"
            )
        self.probability = probability
        self.observation_space = with_blank(env.observation_space)

    def observation(self, observation: Any) -> Any:
        """Return the observation or a blank."""
        blank = self.np_random.random() < self.probability
        return blank_of(self.observation_space) if blank else observation


class ObservationNoise(OwnRandom, gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Add Gaussian noise, drawn anew at every step, to the observation.

    The observation is not clipped: where there is noise the space has no bounds.

    Args:
        env: Environment whose observations are a Box of floats.
        scale: The noise's standard deviation, in the observation's own units: one number, or one
            for each component.

    Raises:
        ValueError: The observations are no floats, or a scale is negative or of another shape.
    """

    def __init__(self, env: AnyEnv, scale: float | Sequence[float]) -> None:
        RecordConstructorArgs.__init__(self, scale=scale)
        gym.ObservationWrapper.__init__(self, env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
            raise ValueError(f"ObservationNoise on {space}: expected observations of floats, a Box")
        try:
            self.scale = np.broadcast_to(np.asarray(scale, dtype=np.float64), space.shape)
        except (TypeError, ValueError):
            self.scale = np.asarray(np.nan)
        if not (np.isfinite(self.scale).all() and (self.scale >= 0).all()):
            raise ValueError(
                f"scale of ObservationNoise is {scale!r}, expected a number of at least 0, or one "
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


class Delay(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Hand every observation out some steps late.

    After step t comes the observation of step `t - steps`; before there is one, the episode's
    first. Rewards and ends are not late: the last `steps` observations are never seen.

    Args:
        env: Any environment.
        steps: How late.

    Raises:
        ValueError: `steps` is no whole number of at least 1.
    """

    def __init__(self, env: AnyEnv, steps: int) -> None:
        RecordConstructorArgs.__init__(self, steps=steps)
        gym.ObservationWrapper.__init__(self, env)
        check_whole("Delay", steps=steps)
        self.steps = steps
        self._waiting: deque[Any] = deque(maxlen=steps + 1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode and return its first observation."""
        self._waiting.clear()
        return super().reset(seed=seed, options=options)

    def observation(self, observation: Any) -> Any:
        """Keep this observation for later and return the one that is due."""
        # Copied, because an environment may write the next observation into the same array.
        self._waiting.append(copy.deepcopy(observation))
        while len(self._waiting) <= self.steps:
            self._waiting.append(self._waiting[-1])
        return copy.deepcopy(self._waiting[0])


class RandomStartCue(OwnRandom, RecordConstructorArgs):
    """Begin at a random moment, and show the cue in the first observations after it only.

    An episode begins with 0 to `max_wait` steps of waiting, all equally probable: blank
    observations, reward 0, actions without effect. Then comes the environment's first observation
    and its episode takes its course. So the cue of a memory task comes when it is not expected,
    and counting steps from the start does not tell when it will be asked for.

    With `components` a task that shows its goal all the time becomes a memory task: those
    components of the observation, the cue, are left in the environment's first `cue_steps`
    observations and zero in all later ones.

    A blank is all zeros, which a Box is widened to contain; Discrete observations get one further
    value for it. A time limit beneath this wrapper, such as that of `gymnasium.make`, does not
    count the steps of waiting.

    Args:
        env: Environment with Box or Discrete observations.
        max_wait: The most steps of waiting.
        components: Indices of the cue in observations `[D]`; None: nothing is hidden.
        cue_steps: Observations in which the cue is seen.

    Raises:
        ValueError: A number is too small, observations of this kind have no blank, or `components`
            are given for something else than a vector or are outside of it.
    """

    def __init__(
        self,
        env: AnyEnv,
        max_wait: int = 10,
        components: Sequence[int] | None = None,
        cue_steps: int = 1,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, max_wait=max_wait, components=components, cue_steps=cue_steps
        )
        super().__init__(env)
        check_whole("RandomStartCue", minimum=0, max_wait=max_wait)
        check_whole("RandomStartCue", cue_steps=cue_steps)
        self.max_wait = max_wait
        self.cue_steps = cue_steps
        self.components = None if components is None else list(components)
        self.observation_space = with_blank(env.observation_space)
        if self.components is not None:
            shape = env.observation_space.shape or ()
            size = shape[0] if len(shape) == 1 else 0
            if not all(type(index) is int and 0 <= index < size for index in self.components):
                raise ValueError(
                    f"components of RandomStartCue are {components!r}, expected indices below "
                    f"{size} of observations that are a vector"
                )
        self._time_to_wait = 0
        self._shown = 0
        self._first: tuple[Any, dict[str, Any]] = (None, {})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; return a blank, or the first observation if there is no wait."""
        self._first = super().reset(seed=seed, options=options)
        self._time_to_wait = int(self.np_random.integers(self.max_wait + 1))
        self._shown = 0
        return self._begin()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, of waiting or of the environment's."""
        if self._time_to_wait > 0:
            self._time_to_wait -= 1
            observation, info = self._begin()
            return observation, 0.0, False, False, info
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._hide(observation), reward, terminated, truncated, info

    def _begin(self) -> tuple[Any, dict[str, Any]]:
        """What is seen before the environment's first step."""
        observation, info = self._first
        if self._time_to_wait > 0:
            return blank_of(self.observation_space), dict(info)
        return self._hide(observation), info

    def _hide(self, observation: Any) -> Any:
        self._shown += 1
        if self.components is None or self._shown <= self.cue_steps:
            return observation
        hidden = observation.copy()
        hidden[self.components] = 0
        return hidden


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
    raise ValueError(f"observations of {space} have no blank, only those of Box and Discrete do")


def blank_of(space: gym.Space[Any]) -> Any:
    """Return a blank of a space that `with_blank` widened, a new one."""
    if isinstance(space, spaces.Discrete):
        return space.start + space.n - 1
    return np.zeros(space.shape or (), dtype=space.dtype)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
