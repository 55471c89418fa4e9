"""What environments do wrong, found where it happens and told with the environment's number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from xlstm_rl.envs.spaces.leaves import Leaf, map_leaves, observation_kind, space_leaves, take


class EnvStepError(RuntimeError):
    """An environment raised, or answered what is not in its space."""


class ErrorContextEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Say in an `EnvStepError` which environment of a vector raised, or observed another shape.

    Inside a vector the observations of all environments are copied into one array: a wrong shape
    would be a puzzle there, or spread over the row without a word.

    Args:
        env: one environment.
        name: what it is called in errors, such as `environment 3`.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self._name, self._steps = name, 0
        self._leaves = space_leaves(env.observation_space)
        numbers = [leaf.space for leaf in space_leaves(env.action_space)]
        self._acts_numbers = any(isinstance(one, spaces.Box) and not one.shape for one in numbers)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment.

        Raises:
            EnvStepError: it raised, or its observation has another shape than its space.
        """
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise EnvStepError(f"{self._name} raised in reset: {_told(error)}") from error
        self._steps = 0
        self._check(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment.

        Raises:
            EnvStepError: it raised, or its observation has another shape than its space.
        """
        if self._acts_numbers:  # a row of a vector's actions is a number there, not an array
            action = map_leaves(_array_of_float, action)
        try:
            answer = self.env.step(action)
            observation = answer[0]
        except Exception as error:
            raise EnvStepError(
                f"{self._name} raised in step {self._steps} of its episode: {_told(error)}"
            ) from error
        self._steps += 1
        self._check(observation)
        return answer

    def _check(self, observation: Any) -> None:
        for leaf in self._leaves:
            try:
                shape = np.shape(take(observation, leaf.path))
            except ValueError as error:
                raise self._error(str(error)) from error
            if shape != leaf.space.shape:
                what = f" {leaf.name!r}" if leaf.path else ""
                raise self._error(
                    f"its observation{what} has shape {list(shape)}, its space is {leaf.space}"
                )

    def _error(self, what: str) -> EnvStepError:
        return EnvStepError(f"{self._name} after {self._steps} steps of its episode: {what}")


def _array_of_float(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, np.floating) else value


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def checked(make: Callable[[], gym.Env[Any, Any]], index: int) -> Callable[[], ErrorContextEnv]:
    """Return a maker of a `ErrorContextEnv` that is called `environment <index>`."""

    def maker() -> ErrorContextEnv:
        return ErrorContextEnv(make(), f"environment {index}")

    return maker


def wrong_observation(
    leaf: Leaf, values: np.ndarray[Any, Any], rows: int
) -> tuple[int | None, str] | None:
    """Return which environment observed something wrong (None: all of them) and what, or None.

    Looked for are another shape, another kind of numbers, and choices that are not among those of
    the space. Numbers beyond the bounds of a Box pass: many environments have some.

    Args:
        leaf: of the observation space of one environment.
        values: of `rows` environments, `[rows, *shape]`.
        rows: how many environments.
    """
    space = leaf.space
    if values.shape != (rows, *(space.shape or ())):
        expected = [rows, *(space.shape or ())]
        got = list(values.shape)
        return None, (
            f"the {_what(leaf)} of {rows} environments has shape {got}, expected {expected}"
        )
    kind = observation_kind(space)
    allowed = _KINDS.get(kind or "", "iub")
    if values.dtype.kind not in allowed:
        return None, f"the {_what(leaf)} has dtype {values.dtype}, its space is {space}"
    if kind == "discrete" or kind == "multi_discrete":
        low = np.asarray(getattr(space, "start", 0))
        count = space.n if isinstance(space, spaces.Discrete) else getattr(space, "nvec", 0)
        outside = (values < low) | (values >= low + count)
        if outside.any():
            row = int(np.argwhere(outside)[0][0])
            return row, f"the {_what(leaf)} is {values[row]}, its space is {space}"
    return None


def _what(leaf: Leaf) -> str:
    return f"observation {leaf.name!r}" if leaf.path else "observation"


_KINDS = {"vector": "fiub", "image": "u", "multi_binary": "fiub"}
