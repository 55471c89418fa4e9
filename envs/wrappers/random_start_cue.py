"""Episodes that begin at a random moment, with a cue that is seen for a moment only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from xlstm_rl.envs.arguments import check_whole, json_form
from xlstm_rl.envs.wrappers.blank import blank_of, with_blank
from xlstm_rl.envs.wrappers.own_random import OwnRandom
from xlstm_rl.options.arguments import whole_number


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
        env: gym.Env[Any, Any],
        max_wait: int = 10,
        components: Sequence[int] | None = None,
        cue_steps: int = 1,
    ) -> None:
        (max_wait,) = check_whole("RandomStartCue", minimum=0, max_wait=max_wait)
        (cue_steps,) = check_whole("RandomStartCue", cue_steps=cue_steps)
        RecordConstructorArgs.__init__(
            self, max_wait=max_wait, components=json_form(components), cue_steps=cue_steps
        )
        super().__init__(env)
        self.max_wait = max_wait
        self.cue_steps = cue_steps
        self.components = None if components is None else list(map(whole_number, components))
        self.observation_space = with_blank(env.observation_space)
        if self.components is not None:
            shape = env.observation_space.shape or ()
            size = shape[0] if len(shape) == 1 else 0
            if any(index is None or not 0 <= index < size for index in self.components):
                raise ValueError(
                    f"components of RandomStartCue are {components!r}, expected indices below "
                    f"{size} of an observation vector"
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
