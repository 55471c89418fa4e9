"""What environments do wrong, found where it happens and told with the environment's number."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from xlstm_rl.closing import closed_on_error
from xlstm_rl.envs.faults.infos import RESERVED
from xlstm_rl.envs.faults.unpacking import expected_answer
from xlstm_rl.envs.snapshots.hooks import HandsOverState
from xlstm_rl.envs.spaces.leaves import (
    Leaf,
    choice_range,
    is_nested,
    map_leaves,
    observation_kind,
    outside_choices,
    space_leaves,
    take,
)


class EnvStepError(RuntimeError):
    """An environment raised, or answered what is not in its space."""


class ErrorContextEnv(gym.Wrapper[Any, Any, Any, Any], HandsOverState):
    """Say in an `EnvStepError` which environment raised, or answered what cannot be used.

    Inside a vector all answers are copied into arrays: a wrong shape would be a puzzle there, and
    a number of another type would be bent to fit without a word. These are refused: observations of
    another shape or type than their space, rewards that are not one number, flags that are neither
    true nor false. So are an info that is not a dict, and answers with too many or too few parts.
    Whether numbers are finite is checked where they are trained on.

    A vector hands on what ended an episode as `final_obs` and `final_info`: an environment's own
    entries with these names are left out of its info.

    Args:
        env: one environment.
        name: what it is called in errors, such as `environment 3`.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self._name, self._steps = name, 0
        self.is_over = self.resets_first = False
        space = env.observation_space
        self._leaves = space_leaves(space)
        alone = not is_nested(space)
        self._shape, self._dtype = (space.shape, space.dtype) if alone else (None, None)
        acted = [leaf.space for leaf in space_leaves(env.action_space)]
        self._acts_numbers = any(isinstance(one, spaces.Box) and not one.shape for one in acted)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment.

        Raises:
            EnvStepError: it raised, or answered what cannot be used.
        """
        try:
            answer: Any = self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise EnvStepError(
                f"{self._name} raised in reset: {_told(error)}{expected_answer(error)}"
            ) from error
        self._steps, self.is_over = 0, False
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise self._error(
                f"its reset returned {describe_answer(answer)}, expected observation and info"
            )
        observation, info = answer
        self._check(observation)
        return observation, self._info(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment.

        Raises:
            EnvStepError: it raised, or answered what cannot be used.
        """
        if self.resets_first:  # what the vector would have known, had it not been made anew
            self.resets_first = False
            observation, info = self.reset()
            return observation, 0.0, False, False, info
        if self._acts_numbers:  # a row of a vector's actions is a number there, not an array
            action = map_leaves(_array_of_float, action)
        try:
            answer: Any = self.env.step(action)
        except Exception as error:
            raise EnvStepError(
                f"{self._name} raised in step {self._steps} of its episode: {_told(error)}"
                f"{expected_answer(error)}"
            ) from error
        self._steps += 1
        if not isinstance(answer, tuple | list) or len(answer) != 5:
            raise self._error(
                f"its step returned {describe_answer(answer)}, expected observation, reward, "
                "terminated, truncated and info"
            )
        observation, reward, terminated, truncated, info = answer
        self._check(observation)
        if not isinstance(reward, float):
            reward = self._reward(reward)
        if type(terminated) is not bool:
            terminated = self._flag("terminated", terminated)
        if type(truncated) is not bool:
            truncated = self._flag("truncated", truncated)
        info = self._info(info)
        if terminated or truncated:
            self.is_over = True
            # kept by the vector through the reset, which may write over both
            observation, info = copy_of(observation), dict(info)
        return observation, reward, terminated, truncated, info

    def _check(self, observation: Any) -> None:
        if (
            type(observation) is np.ndarray
            and observation.shape == self._shape
            and observation.dtype == self._dtype
        ):
            return
        for leaf in self._leaves:
            try:
                wrong = _wrong_part(leaf, take(observation, leaf.path))
            except ValueError as error:
                raise self._error(str(error)) from error
            if wrong is not None:
                raise self._error(wrong)

    def _reward(self, reward: Any) -> float:
        shape, kind = _form(reward)
        if shape:
            raise self._error(f"its reward has shape {list(shape)}, expected one number")
        # an integer may be too large for a float
        with suppress(OverflowError):
            if kind in "fiub" or isinstance(reward, numbers.Real):
                return float(reward)
        raise self._error(f"its reward is {reward!r}, expected a number")

    def _flag(self, name: str, value: Any) -> bool:
        if isinstance(value, np.bool_):
            return bool(value)
        shape, kind = _form(value)
        if shape:
            raise self._error(f"its {name} has shape {list(shape)}, expected one bool")
        if kind in "fiub" and value in (0, 1):
            return bool(value)
        raise self._error(f"its {name} is {value!r}, expected a bool")

    def _info(self, info: Any) -> dict[str, Any]:
        if not isinstance(info, dict):
            kind = "None" if info is None else f"a {type(info).__name__}"
            raise self._error(f"its info is {kind}, expected a dict")
        if "final_obs" in info or "final_info" in info:
            return {key: value for key, value in info.items() if key not in RESERVED}
        return info

    def _error(self, what: str) -> EnvStepError:
        return EnvStepError(f"{self._name} after {self._steps} steps of its episode: {what}")


def _array_of_float(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, np.floating) else value


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def copy_of(observation: Any) -> Any:
    """Return a copy of an observation, which its environment may write over."""
    # NumPy's own copy is several times as fast
    return observation.copy() if type(observation) is np.ndarray else copy.deepcopy(observation)


def describe_answer(answer: Any) -> str:
    """Return in words how many parts `reset` or `step` returned."""
    if isinstance(answer, tuple | list):
        return f"{len(answer)} values"
    return "nothing" if answer is None else f"one {type(answer).__name__}"


def _form(value: Any) -> tuple[tuple[int, ...], str]:
    """Return shape and kind of what should be a number; the kind of all but numbers is `O`."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return (), "O"
    return array.shape, array.dtype.kind


def checked(make: Callable[[], gym.Env[Any, Any]], index: int) -> Callable[[], ErrorContextEnv]:
    """Return a maker of a `ErrorContextEnv` that is called `environment <index>`."""

    def maker() -> ErrorContextEnv:
        env = make()
        with closed_on_error(env.close):
            return ErrorContextEnv(env, f"environment {index}")

    return maker


def _wrong_part(leaf: Leaf, part: Any) -> str | None:
    """Return what is wrong with one leaf of one environment's observation, None if nothing is.

    A vector copies it into an array of the space's type. Nothing may be lost on the way.
    """
    of, space = f" {leaf.name!r}" if leaf.path else "", leaf.space
    if isinstance(part, np.ma.MaskedArray) and part.mask.any():
        return f"its observation{of} has masked entries: fill them"
    try:
        values = np.asarray(part)
    except (TypeError, ValueError, RuntimeError) as error:
        return f"its observation{of} cannot be read as an array: {str(error).splitlines()[0]}"
    if values.shape != space.shape:
        return f"its observation{of} has shape {list(values.shape)}, its space is {space}"
    dtype: Any = space.dtype
    if values.dtype == dtype:
        return None
    found = wrong_observation(leaf, values[None], 1)
    if found is not None:
        return found[1]
    if not np.can_cast(values.dtype, dtype, "same_kind"):
        return f"its observation{of} has dtype {values.dtype}, its space is {space}"
    if np.can_cast(values.dtype, dtype):
        return None
    limits: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    finite = values[np.isfinite(values)]
    outside = finite[(finite < limits.min) | (finite > limits.max)]
    if outside.size:
        return f"its observation{of} holds {outside[0]}, which is too large for {dtype}"
    return None


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
    choices = choice_range(space)
    if choices is None:
        return None
    outside = outside_choices(values, *choices)
    if outside.any():
        row = int(np.argwhere(outside)[0][0])
        text = " ".join(np.array2string(values[row], threshold=8, edgeitems=2).split())
        return row, f"the {_what(leaf)} is {text}, its space is {space}"
    return None


def _what(leaf: Leaf) -> str:
    return f"observation {leaf.name!r}" if leaf.path else "observation"


_KINDS = {"vector": "fiub", "image": "u", "multi_binary": "fiub"}
