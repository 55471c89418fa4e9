"""Our environments in Gymnasium's registry, and looking an id up with helpful errors."""

from __future__ import annotations

import importlib
import re
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from xlstm_rl.envs.extras import is_extra, missing_package
from xlstm_rl.options.arguments import close_names


class _Registered(NamedTuple):
    description: str
    register: dict[str, Any]


def _task(entry_point: str, reward_threshold: float, description: str) -> _Registered:
    """A task of ours, whose vector form stands beside it."""
    return _Registered(
        description,
        {
            "entry_point": f"xlstm_rl.envs.tasks.{entry_point}",
            "vector_entry_point": f"xlstm_rl.envs.tasks.{entry_point}VectorEnv",
            "reward_threshold": reward_threshold,
        },
    )


_ENVS = {
    "xlstm_rl/CartPoleNoVel-v1": _Registered(
        "balance a pole without seeing velocities; 2 numbers, 2 actions, best return 500",
        {
            "entry_point": "xlstm_rl.envs.tasks.no_velocity:make_cart_pole",
            "vector_entry_point": "xlstm_rl.envs.tasks.no_velocity:CartPoleNoVelVectorEnv",
            "max_episode_steps": 500,
            "reward_threshold": 475.0,
        },
    ),
    "xlstm_rl/PendulumNoVel-v1": _Registered(
        "swing a pendulum up without seeing its velocity; 2 numbers, 1 torque",
        {
            "entry_point": "xlstm_rl.envs.tasks.no_velocity:make_pendulum",
            "max_episode_steps": 200,
        },
    ),
    "xlstm_rl/MountainCarContinuousNoVel-v0": _Registered(
        "rock a car out of a valley, seeing its position only; 1 number, 1 force",
        {
            "entry_point": "xlstm_rl.envs.tasks.no_velocity:make_mountain_car",
            "max_episode_steps": 999,
            "reward_threshold": 90.0,
        },
    ),
    "xlstm_rl/LunarLanderNoVel-v3": _Registered(
        "land without seeing velocities; 5 numbers, 4 actions; needs the extra box2d",
        {
            "entry_point": "xlstm_rl.envs.tasks.no_velocity:make_lunar_lander",
            "max_episode_steps": 1000,
            "reward_threshold": 200.0,
        },
    ),
    "xlstm_rl/MemoryChain-v0": _task(
        "memory_chain:MemoryChain",
        0.95,
        "recall one of `bits` signs after `length` steps; optimal return 1, without memory 0",
    ),
    "xlstm_rl/TMaze-v0": _task(
        "tmaze:TMaze",
        0.95,
        "turn to the side named `length` steps before; optimal return 1, without memory 0.5",
    ),
    "xlstm_rl/RepeatPrevious-v0": _task(
        "repeat_previous:RepeatPrevious",
        0.9,
        "name the suit dealt `k` steps ago, as in POPGym; optimal return 1, without memory -0.49",
    ),
    "xlstm_rl/AssociativeRecall-v0": _task(
        "associative_recall:AssociativeRecall",
        0.9,
        "name the values of `pairs` keys; optimal return 1, without memory 2 / `values` - 1",
    ),
    "xlstm_rl/Parity-v0": _task(
        "parity:Parity",
        0.9,
        "say the running parity of `length` bits; optimal return 1, without memory 1 / `length`",
    ),
    "xlstm_rl/NavigateAndReturn-v0": _task(
        "navigate_and_return:NavigateAndReturn",
        0.9,
        "find back to a goal `returns` times, unseen; optimal return 1, without memory 0.28",
    ),
}


def register_envs() -> None:
    """Register our environments with Gymnasium, once."""
    for env_id, env in _ENVS.items():
        if env_id not in gym.registry:
            gym.register(id=env_id, **env.register)


def list_envs() -> list[str]:
    """Return one line for each of our environments: its id, then what it is."""
    width = max(map(len, _ENVS))
    return [f"{env_id:<{width}}  {env.description}" for env_id, env in _ENVS.items()]


def find_spec(env_id: str) -> EnvSpec:
    """Return the registered specification of `env_id`, as gymnasium.spec does.

    Raises:
        ValueError: The id is not registered, or its module cannot be imported; with the ids that
            come closest, whatever their case, version and namespace.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not is_extra(error.name):
                raise ValueError(
                    f"env.id={env_id!r}: the module {module!r} cannot be imported: {error}"
                ) from error
            raise ValueError(missing_package(f"env.id={env_id!r}", error)) from error
    try:
        return gym.spec(name)
    except gym.error.Error as error:
        raise ValueError(
            f"env.id={env_id!r}: no such environment is registered; {_advice(name)}"
        ) from error


def _advice(name: str) -> str:
    close = _close_ids(name)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return (
        "gymnasium.pprint_registry() shows what is registered. For an environment of another "
        "package, put the module that registers it in front, as in 'module:Name-v0'"
    )


def _close_ids(name: str) -> list[str]:
    """The ids most like `name`, at most three; case, version and namespace do not count."""
    newest: dict[str, EnvSpec] = {}
    for spec in gym.registry.values():
        key = f"{spec.namespace}/{spec.name}"
        if key not in newest or (spec.version or 0) > (newest[key].version or 0):
            newest[key] = spec
    ids: dict[str, list[str]] = {}
    for spec in newest.values():
        ids.setdefault(_bare(spec.id), []).append(spec.id)
    matches = close_names(_bare(name), ids, n=3, cutoff=0.7)
    if _bare(name) in ids:
        matches = [_bare(name)]
    namespace = name.rpartition("/")[0]
    return [
        env_id
        for match in matches
        for env_id in sorted(ids[match], key=lambda env_id: not env_id.startswith(namespace))
    ][:3]


def _bare(env_id: str) -> str:
    """The name without namespace and version, lower case, letters and digits only."""
    name = re.sub(r"-v\d+$", "", env_id.rpartition("/")[2])
    return re.sub(r"[^a-z0-9]", "", name.lower())
