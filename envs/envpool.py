"""EnvPool's vectors of environments that step in C++ threads, behind Gymnasium's calls."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.extras import missing_package


class EnvPoolVectorEnv(VectorEnv[Any, Any, Any]):
    """`B` environments of EnvPool.

    EnvPool fixes its seed where the pool is made and knows one autoreset only: the step after an
    episode's end ignores its action, gives reward 0 and returns the first observation of the next
    episode (NEXT_STEP). So `reset(seed=)` makes the pool anew; without a seed the random numbers go
    on.

    Args:
        env_id: EnvPool's id, such as `Pong-v5`; `envpool.list_all_envs()` lists them.
        num_envs: Number of environments, `B`.
        kwargs: Options of EnvPool, such as `stack_num` or `max_episode_steps`.

    Raises:
        ValueError: EnvPool is not installed, does not know the id, or does not take an option.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": [],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    _pool: Any = None  # what could not be made is closed too, by `VectorEnv.__del__`

    def __init__(self, env_id: str, num_envs: int = 1, **kwargs: Any) -> None:
        self.num_envs = num_envs
        self._make = {"task_id": env_id, **kwargs}
        self._pool = _make_pool(num_envs, self._make)
        # EnvPool gives the spaces of one environment under the names of the batch's too.
        self.single_observation_space = self._pool.observation_space
        self.single_action_space = self._pool.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in each environment; with a seed (or one for each) the pool is new."""
        if seed is not None:
            self._pool.close()
            self._pool = _make_pool(self.num_envs, {**self._make, "seed": seed})
        observations, info = self._pool.reset(options=options)
        return observations, _rows(info)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one action in each environment."""
        # Each kind of action has one dtype in C++; Gymnasium's actions may have another.
        actions = np.asarray(actions, dtype=self.single_action_space.dtype)
        observations, rewards, terminated, truncated, info = self._pool.step(actions)
        return observations, rewards, terminated, truncated, _rows(info)

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the pool's threads."""
        if self._pool is not None:
            self._pool.close()


class EnvPoolEnv(gym.Env[Any, Any]):
    """One environment of EnvPool, as evaluation wants it.

    Args:
        env_id: EnvPool's id.
        kwargs: Options of EnvPool.

    Raises:
        ValueError: EnvPool is not installed, does not know the id, or does not take an option.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, env_id: str, **kwargs: Any) -> None:
        self._vector = EnvPoolVectorEnv(env_id, 1, **kwargs)
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; there are no options."""
        super().reset(seed=seed)
        observations, _ = self._vector.reset(seed=seed)
        return _first(observations), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one action."""
        observations, rewards, terminated, truncated, _ = self._vector.step(np.asarray([action]))
        return (
            _first(observations),
            float(rewards[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {},
        )

    def close(self) -> None:
        """Stop the pool's threads."""
        self._vector.close()


def make_pool_env(config: EnvConfig, env: object = None) -> EnvPoolEnv:
    """Return one environment of EnvPool; `env` may be an id to be taken instead of `config.id`.

    Raises:
        ValueError: `env` is not an id, or EnvPool cannot make it.
    """
    return EnvPoolEnv(_pool_id(config, env), **_pool_kwargs(config))


def make_pool_vector_env(config: EnvConfig, env: object = None) -> EnvPoolVectorEnv:
    """Return `config.num_envs` environments of EnvPool; `env` as for `make_pool_env`.

    Raises:
        ValueError: `env` is not an id, or EnvPool cannot make it.
    """
    return EnvPoolVectorEnv(_pool_id(config, env), config.num_envs, **_pool_kwargs(config))


def _pool_id(config: EnvConfig, env: object) -> str:
    if env is None or isinstance(env, str):
        return env or config.id
    raise ValueError(
        f"env.vectorization='envpool': {env!r} came, expected the id of one of "
        "EnvPool's environments"
    )


def _pool_kwargs(config: EnvConfig) -> dict[str, Any]:
    limit = config.max_episode_steps
    return {**config.kwargs, **({} if limit is None else {"max_episode_steps": limit})}


def _make_pool(num_envs: int, arguments: Mapping[str, Any]) -> Any:
    arguments = dict(arguments)
    env_id = arguments.pop("task_id")
    try:
        import envpool
    except ImportError as error:
        raise ValueError(
            missing_package(f"env.vectorization='envpool': {env_id}", error)
        ) from error
    if env_id not in envpool.list_all_envs():
        raise ValueError(
            f"env.id={env_id!r}: EnvPool has no such environment; envpool.list_all_envs() lists "
            "what it has"
        )
    try:
        with warnings.catch_warnings():
            # Some bounds are float64 in a space of float32.
            warnings.filterwarnings("ignore", ".*precision lowered by casting", UserWarning)
            pool = envpool.make(env_id, env_type="gymnasium", num_envs=num_envs, **arguments)
            # The spaces are built at the first look, which may warn.
            _ = pool.observation_space, pool.action_space
            return pool
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(
            f"EnvPool cannot make {num_envs} of {env_id} with {arguments}: {error}"
        ) from error


def _rows(info: Mapping[str, Any]) -> dict[str, Any]:
    """What `info` says of each environment: EnvPool's own books (`players`, ids) are left out."""
    return {
        name: value
        for name, value in info.items()
        if name not in ("players", "env_id") and isinstance(value, np.ndarray)
    }


def _first(observations: Any) -> Any:
    """The observation of the first environment, of arrays nested in mappings and tuples."""
    if isinstance(observations, Mapping):
        return {name: _first(part) for name, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(map(_first, observations))
    return observations[0]
