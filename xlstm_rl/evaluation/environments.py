"""Which environments a policy is evaluated in, and how they are made and closed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from xlstm_rl.closing import closed_on_error
from xlstm_rl.config import ConfigError
from xlstm_rl.envs import make_env
from xlstm_rl.envs.config import CUSTOM_ENV, EnvConfig, is_custom
from xlstm_rl.envs.registration import find_spec
from xlstm_rl.envs.single_env import check_render_mode
from xlstm_rl.envs.spaces.support import same_spaces
from xlstm_rl.options.arguments import user_path
from xlstm_rl.policy.policy import Policy

AnyEnv = gymnasium.Env[Any, Any]
Environment = str | Callable[..., AnyEnv] | AnyEnv | EnvConfig | None
"""An id, a callable that makes one environment, one that is ready, or a configuration; None: the
one that the policy was trained on."""

_PASS_ONE = (
    "pass `env`: a callable that makes one environment, a ready one, or an id (on the command "
    "line --env.id)"
)


@dataclass(frozen=True)
class EnvSource:
    """Where the environments of an evaluation come from."""

    config: EnvConfig

    env: Callable[..., AnyEnv] | AnyEnv | None
    """What is taken instead of the configuration's id."""

    @property
    def is_ready(self) -> bool:
        """Whether it is one environment that somebody else made, and will close."""
        return isinstance(self.env, gymnasium.Env)


def find_source(policy: Policy, env: Environment, max_episode_steps: int | None) -> EnvSource:
    """Return what is meant by the arguments of `evaluate`.

    Raises:
        ConfigError: nothing can be made of them.
    """
    source = _source(policy, env)
    if max_episode_steps is None:
        return source
    return replace(source, config=replace(source.config, max_episode_steps=max_episode_steps))


def _source(policy: Policy, env: Environment) -> EnvSource:
    trained = policy.env_config
    if env is None:
        env = trained or EnvConfig(id=CUSTOM_ENV)
        if is_custom(env.id):  # in the process of the training its callable is known
            env = policy.trained_on.callable or env
    if isinstance(env, str):
        # The arguments of the training environment mean nothing to another id.
        known = trained is not None and _same_id(trained.id, env)
        env = trained if known and trained is not None else EnvConfig(id=env)
    if isinstance(env, EnvConfig):
        if is_custom(env.id):
            raise ConfigError(
                "the policy was trained on a callable or a ready vector environment, which is not "
                f"saved with it: {_PASS_ONE}"
            )
        return EnvSource(env, None)
    if isinstance(env, VectorEnv):
        raise ConfigError(
            f"evaluation plays single environments, {env} is a vector of them: {_PASS_ONE}"
        )
    if isinstance(env, gymnasium.Env):
        return EnvSource(EnvConfig(), env)
    if not callable(env):
        raise ConfigError(f"env is of type {type(env).__name__}: {_PASS_ONE}")
    if trained is None or not is_custom(trained.id) or policy.trained_on.is_other(env):
        return EnvSource(EnvConfig(), env)
    _refuse_two_values(trained.kwargs, env)
    return EnvSource(trained, env)


def _same_id(one: str, other: str) -> bool:
    """Return whether two ids mean the same registration: a module or a version may be left out."""
    if one == other:
        return True
    try:
        return bool(find_spec(one).id == find_spec(other).id)
    except ValueError:  # what is unknown is told where it is made
        return False


def _refuse_two_values(kwargs: dict[str, Any], env: Callable[..., AnyEnv]) -> None:
    """Refuse a `partial` whose arguments training's would replace without a word."""
    own = env.keywords if isinstance(env, partial) else {}
    for name, value in own.items():
        if name in kwargs and kwargs[name] != value:
            raise ConfigError(
                f"env: the partial has {name}={value!r}, the policy was trained with env.kwargs."
                f"{name}={kwargs[name]!r}: for another environment pass one that is ready made"
            )


@contextmanager
def opened(
    source: EnvSource, policy: Policy, count: int, video_dir: str | Path | None
) -> Iterator[list[AnyEnv]]:
    """Make environments for a policy, and close them at the end if they are not somebody else's.

    Raises:
        ConfigError: they cannot be made, their spaces are not the policy's, or there is one
            environment behind two of them.
    """
    with ExitStack() as stack:
        envs: list[AnyEnv] = []
        for _ in range(count):
            env = _make(source, video_dir)
            if any(env.unwrapped is other.unwrapped for other in envs):
                stack.pop_all()  # whoever handed it out has it still
                raise ConfigError(
                    f"the callable {source.env!r} returned the same environment twice: it must "
                    "make a new one at every call; or pass the environment itself, in which the "
                    "episodes are played one after the other"
                )
            stack.callback(env.close)
            check_spaces(policy, env.observation_space, env.action_space)
            envs.append(env)
        yield envs


def _make(source: EnvSource, video_dir: str | Path | None) -> AnyEnv:
    render_mode = None if video_dir is None else "rgb_array"
    env: AnyEnv
    if isinstance(source.env, gymnasium.Env):
        check_render_mode(source.env, render_mode)
        env = _NotClosed(source.env)
        limit = source.config.max_episode_steps
        if limit is not None:
            env = gymnasium.wrappers.TimeLimit(env, limit)
    else:
        env = make_env(source.config, source.env, render_mode)
    if video_dir is None:
        return env
    folder = user_path(video_dir)
    is_new = not folder.exists()
    with closed_on_error(env.close):
        try:
            video = gymnasium.wrappers.RecordVideo(env, str(folder), episode_trigger=lambda _: True)
        except gymnasium.error.DependencyNotInstalled as error:
            if is_new and folder.is_dir():  # RecordVideo makes it before it looks for the package
                folder.rmdir()
            raise _no_video(error) from error
        except OSError as error:
            raise ConfigError(f"video folder {folder}: cannot be made: {error.strerror}") from error
    return _Drawn(video)


class _Drawn(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A recorded environment; what drawing lacks is found at the first frame of an episode."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode and its video.

        Raises:
            ConfigError: a package is missing.
        """
        try:
            return super().reset(seed=seed, options=options)
        except gymnasium.error.DependencyNotInstalled as error:
            raise _no_video(error) from error


def _no_video(error: Exception) -> ConfigError:
    reason = str(error).splitlines()[0].partition(", run ")[0]  # what to run, the extra says
    return ConfigError(f'no video: {reason}; install it with `pip install "xlstm_rl[video]"`')


class _NotClosed(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that stays open."""

    def close(self) -> None:
        """Leave it to whoever made it."""


def check_spaces(policy: Policy, observation_space: Any, action_space: Any) -> None:
    """Refuse an environment whose spaces are not the policy's.

    Raises:
        ConfigError: says what differs.
    """
    spaces = {"observation_space": observation_space, "action_space": action_space}
    for kind, space in spaces.items():
        difference = same_spaces(getattr(policy, kind), space)
        if difference is not None:
            raise ConfigError(
                f"the policy does not fit this environment's {kind} (policy's against "
                f"environment's): {difference}"
            )
