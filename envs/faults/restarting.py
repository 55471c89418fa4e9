"""Environments that are made anew when they raise or answer what they may not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from xlstm_rl.closing import closed_on_error
from xlstm_rl.envs.faults.error_context import EnvStepError, copy_of
from xlstm_rl.envs.faults.validating import AnswerCheck, ValidatingEnv
from xlstm_rl.envs.snapshots.hooks import HandsOverState
from xlstm_rl.envs.spaces.support import same_spaces

BROKEN = "xlstm_rl/broken"
"""The key in the info of the last step of an episode that broke."""

MOST_IN_A_ROW = 3
"""At the failure with this number, without a whole step in between, restarting gives up."""


class RestartingEnv(gym.Env[Any, Any], HandsOverState):
    """Cut an episode that an environment broke, and go on with a new environment.

    It breaks one by raising, and by all that `ValidatingEnv` refuses. To those who step it, a
    broken episode was truncated at the last good observation that came out of it, with a reward
    of zero and `info[BROKEN]` true. Each restart is told in a warning.

    Args:
        make: makes one environment.
        index: its number in the vector, for errors.
        check: what else is looked at, as for `ValidatingEnv`.

    Raises:
        EnvStepError: the environment failed three times without a step in between.
    """

    def __init__(
        self, make: Callable[[], gym.Env[Any, Any]], index: int, check: AnswerCheck | None = None
    ) -> None:
        self._make, self._name, self._check = make, f"environment {index}", check
        self._env = self._validated()
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        self.metadata, self.render_mode = self._env.metadata, self._env.render_mode
        self._failures = self._restarts = 0
        self._seed: int | None = None
        self._is_new = False
        self._last: Any = None

    def stepped(self) -> ValidatingEnv:
        """Return the environment that lives."""
        return self._env

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, in a new environment where this one cannot."""
        if seed is not None:
            self._seed = seed
        elif self._is_new:
            seed = seed_after(self._seed, self._restarts)
        while True:
            try:
                observation, info = self._env.reset(seed=seed, options=options)
            except EnvStepError as error:
                self._restart(error)
                seed = seed_after(self._seed, self._restarts)
            else:
                self._is_new = False
                self._last = copy_of(observation)
                return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment; a step in which it fails ends the episode."""
        try:
            answer = self._env.step(action)
        except EnvStepError as error:
            self._restart(error)
            return self._last, 0.0, False, True, {BROKEN: True}
        self._failures = 0
        self._last = copy_of(answer[0])
        return answer

    def _restart(self, error: EnvStepError) -> None:
        self._count(error)
        try:
            self._env.close()
        except Exception as failure:
            warnings.warn(
                f"{self._name} raised in close: {failure!r}", RuntimeWarning, stacklevel=3
            )
        while True:
            try:
                env = self._validated()
                with closed_on_error(env.close):
                    self._refuse_other_spaces(env)
                self._env = env
            except Exception as failure:
                self._count(EnvStepError(f"{self._name} could not be created again: {failure!r}"))
            else:
                self._is_new = True
                return

    def _validated(self) -> ValidatingEnv:
        env = self._make()
        with closed_on_error(env.close):
            return ValidatingEnv(env, self._name, self._check)

    def _refuse_other_spaces(self, env: ValidatingEnv) -> None:
        for kind in ("observation_space", "action_space"):
            difference = same_spaces(getattr(self, kind), getattr(env, kind))
            if difference is not None:
                raise ValueError(f"its {kind} changed: {difference}")

    def _count(self, error: EnvStepError) -> None:
        self._failures += 1
        if self._failures >= MOST_IN_A_ROW:
            raise EnvStepError(
                f"{error} ({self._failures} times in a row: env.on_error='restart' gives up)"
            ) from error
        self._restarts += 1
        # the number, because Python shows a warning of the same words once only
        message = f"{error}: restarted, restart {self._restarts} of this environment"
        warnings.warn(message, RuntimeWarning, stacklevel=4)

    def render(self) -> Any:
        """Return what the environment renders."""
        return self._env.render()

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    @property
    def unwrapped(self) -> gym.Env[Any, Any]:
        """The environment at the core, while it lives."""
        return self._env.unwrapped


def restarting(
    make: Callable[[], gym.Env[Any, Any]], index: int, check: AnswerCheck | None = None
) -> Callable[[], RestartingEnv]:
    """Return a maker of a `RestartingEnv`."""

    def maker() -> RestartingEnv:
        return RestartingEnv(make, index, check)

    return maker


def seed_after(seed: int | None, restarts: int) -> int | None:
    """Return what seeds a new environment, so that a run with restarts can be repeated too.

    Not the first seed again: what broke at it would break once more.
    """
    if seed is None:
        return None
    state = np.random.SeedSequence((seed, restarts)).generate_state(1)[0]
    return int(state) >> 1  # some environments want it to fit 32 bits with a sign
