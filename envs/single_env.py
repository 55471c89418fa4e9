"""A single environment: from a registration or by a callable, with wrappers around it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import TimeLimit

from xlstm_rl.closing import closed_on_error
from xlstm_rl.envs.config import EnvConfig, is_custom
from xlstm_rl.envs.envpool import make_pool_env
from xlstm_rl.envs.extras import missing_package
from xlstm_rl.envs.registration import find_spec
from xlstm_rl.envs.wrappers.registry import wrap

AnyEnv = gym.Env[Any, Any]


@dataclass(frozen=True)
class SpecMaker:
    """Makes one registered environment, also in a process that never ran the registration."""

    spec: EnvSpec
    kwargs: dict[str, Any]
    max_episode_steps: int | None
    render_mode: str | None

    def __call__(self) -> AnyEnv:
        """Make it."""
        kwargs = self.kwargs
        if self.render_mode is not None:
            kwargs = {**kwargs, "render_mode": self.render_mode}
        with clear_errors(self.spec.id):
            return gym.make(self.spec, max_episode_steps=self.max_episode_steps, **kwargs)


@dataclass(frozen=True)
class CallableMaker:
    """Makes one environment by the user's callable."""

    call: Callable[..., AnyEnv]
    kwargs: dict[str, Any]
    max_episode_steps: int | None
    render_mode: str | None

    def __call__(self) -> AnyEnv:
        """Make it."""
        kwargs = self.kwargs
        parameters = parameters_of(self.call)
        if self.render_mode is not None and (
            "render_mode" in parameters
            or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        ):
            kwargs = {**kwargs, "render_mode": self.render_mode}
        with clear_errors(repr(self.call)):
            env = self.call(**kwargs)
        if not isinstance(env, gym.Env):
            _refuse_torchrl(env)
            raise ValueError(
                f"the callable {self.call!r} returned {type(env).__name__}, expected a "
                "gymnasium.Env; a ready vector environment is given as it is, without a callable"
            )
        with closed_on_error(env.close):
            check_render_mode(env, self.render_mode)
            return env if self.max_episode_steps is None else TimeLimit(env, self.max_episode_steps)


@dataclass(frozen=True)
class WrappedMaker:
    """Makes one environment and puts wrappers around it."""

    maker: SpecMaker | CallableMaker
    wrappers: dict[str, Any]

    def __call__(self) -> AnyEnv:
        """Make it."""
        env = self.maker()
        with closed_on_error(env.close):
            return wrap(env, self.wrappers)


Maker = SpecMaker | CallableMaker | WrappedMaker


def single_maker(
    config: EnvConfig,
    env: str | Callable[..., AnyEnv] | AnyEnv | None,
    render_mode: str | None = None,
) -> Maker:
    """Return what makes the environment of `config`, or of an id or a callable instead of its id.

    Raises:
        ValueError: There is no environment of that name, or `env` is something else.
    """
    maker = _bare_maker(config, env, render_mode)
    return WrappedMaker(maker, config.wrappers) if config.wrappers else maker


def _bare_maker(
    config: EnvConfig, env: str | Callable[..., AnyEnv] | AnyEnv | None, render_mode: str | None
) -> SpecMaker | CallableMaker:
    if isinstance(env, str):
        config = replace(config, id=env)
        env = None
    rest = (config.kwargs, config.max_episode_steps, render_mode)
    if env is None and is_custom(config.id):
        raise ValueError(
            f"env.id={config.id!r} stands for a callable or vector environment of a run in Python, "
            "which is not saved: pass it again, in Python"
        )
    if env is None:
        return SpecMaker(find_spec(config.id), *rest)
    _refuse_torchrl(env)  # those are callable
    if callable(env):
        return CallableMaker(env, *rest)
    raise ValueError(
        f"the environment is given as {type(env).__name__}, expected an id, a callable that makes "
        "a gymnasium.Env, or a gymnasium.vector.VectorEnv"
    )


def _refuse_torchrl(env: object) -> None:
    """Say how to give an environment of TorchRL, which is not imported for that."""
    if any(one.__module__ == "torchrl.envs.common" for one in type(env).__mro__):
        raise ValueError(
            f"{type(env).__name__} is an environment of TorchRL, expected a gymnasium.Env: "
            "register it by torchrl.envs.GymEnv.register_gym, and give a callable around "
            "gymnasium.make; docs/torchrl.md has an example"
        )


def make_env(
    config: EnvConfig,
    env: str | Callable[..., AnyEnv] | AnyEnv | None = None,
    render_mode: str | None = None,
) -> AnyEnv:
    """Make a single environment, as evaluation wants it.

    Args:
        config: What to make; `num_envs`, `vectorization` and `autoreset` do not matter here.
        env: An id or a callable that makes an environment (it is called with `config.kwargs`), to
            be taken instead of `config.id`; or a ready environment, returned as it is.
        render_mode: As in gymnasium.make; a callable must take it as an argument.

    Raises:
        ValueError: The environment cannot be made; the message says why and what to do.
    """
    if isinstance(env, VectorEnv):
        raise ValueError(
            f"one single environment is needed, but {env} is a vector of them: "
            "give an id or a callable that makes one"
        )
    if isinstance(env, gym.Env):
        refuse_settings(config)
        check_render_mode(env, render_mode)
        return env
    if config.vectorization == "envpool":
        if render_mode is not None:
            raise ValueError(
                f"render_mode={render_mode!r} does not go with env.vectorization='envpool': "
                "EnvPool draws windows of its own; take another vectorization for rendering"
            )
        return make_pool_env(config, env)
    return single_maker(config, env, render_mode)()


def refuse_settings(config: EnvConfig, *others: str) -> None:
    """Refuse what could not be done to an environment that was made elsewhere.

    Args:
        config: What is asked for.
        others: Further options that come too late for such an environment.
    """
    if config.wrappers:
        raise ValueError(
            f"env.wrappers: {', '.join(config.wrappers)} cannot wrap an environment that is passed "
            "ready made: pass an id or a callable that makes one"
        )
    usual = EnvConfig()
    for name in ("kwargs", "max_episode_steps", *others):
        value = getattr(config, name)
        if value != getattr(usual, name):
            raise ValueError(
                f"env.{name}={value!r} comes too late for an environment passed ready made: "
                "pass an id or a callable that makes one"
            )


def parameters_of(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return what a callable takes, by name."""
    try:
        return inspect.signature(call).parameters
    except ValueError:  # some built-in callables have no signature
        return {}


def check_render_mode(env: AnyEnv, render_mode: str | None) -> None:
    """Refuse an environment that was made to render otherwise than is needed."""
    if render_mode is not None and env.render_mode != render_mode:
        raise ValueError(
            f"the environment {env} has render_mode {env.render_mode!r}, but {render_mode!r} is "
            "needed: let the callable that makes it take an argument render_mode and pass it on"
        )


@contextmanager
def clear_errors(name: str) -> Iterator[None]:
    """Say in one ValueError what is missing or wrong when an environment cannot be made."""
    try:
        yield
    except (gym.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise ValueError(missing_package(name, error)) from error
    except gym.error.Error as error:
        raise ValueError(f"{name} cannot be made: {error}") from error
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(f"{name} does not take one of the kwargs: {error}") from error
