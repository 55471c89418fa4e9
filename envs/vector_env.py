"""A vector of environments: the native form of a task, in this process, or one process each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import gymnasium as gym
import torch
from gymnasium import vector as gym_vector
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, VectorEnv

from xlstm_rl.closing import closed_on_error
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.envpool import make_pool_vector_env
from xlstm_rl.envs.faults.error_context import checked
from xlstm_rl.envs.faults.infos import AnyInfo
from xlstm_rl.envs.faults.processes import AsyncVectorEnv
from xlstm_rl.envs.faults.restarting import restarting
from xlstm_rl.envs.faults.restarting_processes import RestartingAsyncVectorEnv
from xlstm_rl.envs.faults.validating import AnswerCheck
from xlstm_rl.envs.registration import find_spec
from xlstm_rl.envs.single_env import (
    AnyEnv,
    Maker,
    SpecMaker,
    clear_errors,
    parameters_of,
    refuse_settings,
    single_maker,
)
from xlstm_rl.envs.spaces.support import same_spaces

AnyVectorEnv = VectorEnv[Any, Any, Any]


class SyncVectorEnv(AnyInfo, gym_vector.SyncVectorEnv):
    """Gymnasium's, for infos of any kind."""


_AUTORESET = {
    "same_step": AutoresetMode.SAME_STEP,
    "next_step": AutoresetMode.NEXT_STEP,
    "disabled": AutoresetMode.DISABLED,
}


def make_vector_env(
    config: EnvConfig,
    env: str | Callable[..., AnyEnv] | AnyVectorEnv | None = None,
    device: torch.device | str = "cpu",
    check: AnswerCheck | None = None,
) -> AnyVectorEnv:
    """Make the vector environment that `config` describes. Seeds are given to its `reset`.

    Args:
        config: What to make and how.
        env: An id or a callable that makes a single environment (it is called with
            `config.kwargs`), to be taken instead of `config.id`; or a ready vector environment,
            returned as it is. With `vectorization="async"` a callable is sent to the processes by
            cloudpickle, so lambdas and closures will do.
        device: Where the policy is. On a CUDA device a native form that takes `device` and
            `tensors`, such as those of the memory tasks, computes there too, from tensors to
            tensors, unless `config.kwargs` has a `device` or `tensors: false`.
        check: With `on_error="restart"`, a further look at what single environments answer.

    Raises:
        ValueError: The environment cannot be made so; the message says why and what to do.
    """
    if isinstance(env, VectorEnv):
        refuse_settings(config, "vectorization", "autoreset", "on_error")
        autoreset_mode(env)
        return env
    if config.vectorization == "envpool":
        return make_pool_vector_env(config, env)
    maker = single_maker(config, env)
    wanted = None if config.autoreset == "auto" else _AUTORESET[config.autoreset]
    alone = config.on_error == "restart" and config.vectorization == "auto"
    if config.vectorization in ("auto", "native") and not alone:
        native = _native_form(maker, config.num_envs, wanted, torch.device(device))
        if native is not None:
            return native
        if config.vectorization == "native":
            name = maker.spec.id if isinstance(maker, SpecMaker) else "a callable"
            if config.wrappers:
                name = "an environment in env.wrappers"
            mode_text = f" with autoreset {config.autoreset!r}" if wanted else ""
            raise ValueError(
                f"env.vectorization='native': {name} has no vector form of its own{mode_text}; "
                "use 'auto', 'sync' or 'async'"
            )
    makers: list[Callable[[], AnyEnv]]
    if config.on_error == "restart":
        makers = [restarting(maker, index, check) for index in range(config.num_envs)]
    else:
        makers = [checked(maker, index) for index in range(config.num_envs)]
    mode = wanted or AutoresetMode.SAME_STEP
    if config.vectorization == "async":
        vector_class = RestartingAsyncVectorEnv if config.on_error == "restart" else AsyncVectorEnv
        with _one_space_for_all([]):
            return vector_class(makers, autoreset_mode=mode)
    made: list[AnyEnv] = []
    with closed_on_error(lambda: _close_all(made)), _one_space_for_all(made):
        vector_env = SyncVectorEnv([_recording(make, made) for make in makers], autoreset_mode=mode)
    if len({id(single.unwrapped) for single in vector_env.envs}) < config.num_envs:
        vector_env.close()
        raise ValueError(
            f"the callable {env!r} returned the same environment twice: "
            "it must make a new one at every call"
        )
    return vector_env


def autoreset_mode(vector_env: AnyVectorEnv) -> AutoresetMode:
    """Return when the finished episodes of `vector_env` restart.

    Raises:
        ValueError: Its metadata does not say so.
    """
    value = (vector_env.metadata or {}).get("autoreset_mode")
    try:
        return AutoresetMode(value)
    except ValueError:
        raise ValueError(
            f"metadata['autoreset_mode'] of {vector_env} is {value!r}: set it to the member of "
            "gymnasium.vector.AutoresetMode that says when finished episodes restart "
            f"({', '.join(mode.name for mode in AutoresetMode)}), for example "
            "env.metadata = {**env.metadata, 'autoreset_mode': AutoresetMode.NEXT_STEP}"
        ) from None


def has_native_form(config: EnvConfig) -> bool:
    """Return whether `make_vector_env` would take the environment's own vector form.

    Its autoreset mode does not matter here.

    Raises:
        ValueError: There is no environment of that name.
    """
    if config.vectorization not in ("auto", "native") or config.wrappers:
        return False
    if config.on_error == "restart" and config.vectorization == "auto":
        return False
    spec = find_spec(config.id)
    return spec.vector_entry_point is not None and not spec.additional_wrappers


def _native_form(
    maker: Maker, num_envs: int, wanted: AutoresetMode | None, device: torch.device
) -> AnyVectorEnv | None:
    """The environment's own vector form; None if there is none that restarts as `wanted`."""
    if not isinstance(maker, SpecMaker):
        return None
    entry_point = maker.spec.vector_entry_point
    if entry_point is None or maker.spec.additional_wrappers:  # those wrap single environments
        return None
    kwargs = dict(maker.kwargs)
    if maker.max_episode_steps is not None:
        kwargs["max_episode_steps"] = maker.max_episode_steps
    with clear_errors(maker.spec.id):
        creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
        parameters = parameters_of(creator)
        if wanted is not None and "autoreset_mode" in parameters:
            kwargs["autoreset_mode"] = wanted
        on_device = device.type == "cuda" and kwargs.get("tensors", True)
        if on_device and {"device", "tensors"} <= parameters.keys() and "device" not in kwargs:
            kwargs.update(device=str(device), tensors=True)
        native = gym.make_vec(
            maker.spec, num_envs, vectorization_mode="vector_entry_point", **kwargs
        )
    with closed_on_error(native.close):
        if wanted in (None, autoreset_mode(native)):
            return native
    native.close()
    return None


def _close_all(made: list[AnyEnv]) -> None:
    with ExitStack() as stack:
        for env in made:
            stack.callback(env.close)


def _recording(make: Callable[[], AnyEnv], made: list[AnyEnv]) -> Callable[[], AnyEnv]:
    def maker() -> AnyEnv:
        made.append(make())
        return made[-1]

    return maker


@contextmanager
def _one_space_for_all(made: list[AnyEnv]) -> Iterator[None]:
    """Name the environment of a vector whose spaces are not those of the first."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise ValueError(
            "a process of env.vectorization='async' died while it made its environment: "
            "'sync' shows where"
        ) from error
    except (RuntimeError, AssertionError) as error:
        _refuse_different_spaces(made, error)
        if "space" in str(error):
            raise ValueError(
                f"the environments of a vector need the same spaces: {error}"
            ) from error
        raise
    else:
        # Gymnasium before 1.4 compares by assertions, which `python -O` leaves out
        spaces = [(env.observation_space, env.action_space) for env in made]
        if any(pair != spaces[0] for pair in spaces):
            _refuse_different_spaces(made, None)


def _refuse_different_spaces(made: list[AnyEnv], cause: Exception | None) -> None:
    for index, env in enumerate(made):
        for kind in ("observation_space", "action_space"):
            difference = same_spaces(getattr(made[0], kind), getattr(env, kind))
            if difference is not None:
                raise ValueError(
                    f"the {kind} of environment {index} is not that of environment 0: "
                    f"{difference} All environments of a vector need the same spaces"
                ) from cause
