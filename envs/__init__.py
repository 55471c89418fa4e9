"""Gymnasium environments, wrappers and the construction of vector environments.

Importing this package registers the `xlstm_rl/...` environments with Gymnasium.
"""

if __name__ != "xlstm_rl.envs":
    raise ImportError("this folder is the package xlstm_rl.envs: import it by that name")

from typing import TYPE_CHECKING

from xlstm_rl.envs.registration import list_envs, register_envs
from xlstm_rl.lazy import lazy_names

if TYPE_CHECKING:
    from xlstm_rl.envs.config import EnvConfig
    from xlstm_rl.envs.envpool import EnvPoolEnv, EnvPoolVectorEnv
    from xlstm_rl.envs.single_env import make_env
    from xlstm_rl.envs.spaces.serialization import space_from_dict, space_to_dict
    from xlstm_rl.envs.spaces.support import check_supported_spaces, describe_space, same_spaces
    from xlstm_rl.envs.tasks.associative_recall import AssociativeRecall, AssociativeRecallVectorEnv
    from xlstm_rl.envs.tasks.memory_chain import MemoryChain, MemoryChainVectorEnv
    from xlstm_rl.envs.tasks.navigate_and_return import (
        NavigateAndReturn,
        NavigateAndReturnVectorEnv,
    )
    from xlstm_rl.envs.tasks.no_velocity import CartPoleNoVelVectorEnv
    from xlstm_rl.envs.tasks.parity import Parity, ParityVectorEnv
    from xlstm_rl.envs.tasks.repeat_previous import RepeatPrevious, RepeatPreviousVectorEnv
    from xlstm_rl.envs.tasks.tmaze import TMaze, TMazeVectorEnv
    from xlstm_rl.envs.vector_env import autoreset_mode, make_vector_env
    from xlstm_rl.envs.wrappers.delay import Delay
    from xlstm_rl.envs.wrappers.flicker import Flicker
    from xlstm_rl.envs.wrappers.no_velocity import NoVelocity
    from xlstm_rl.envs.wrappers.observation_noise import ObservationNoise
    from xlstm_rl.envs.wrappers.random_start_cue import RandomStartCue
    from xlstm_rl.envs.wrappers.registry import list_wrappers
    from xlstm_rl.envs.wrappers.symbols import Symbols
    from xlstm_rl.envs.wrappers.without_background import WithoutBackground

__all__ = [
    "AssociativeRecall",
    "AssociativeRecallVectorEnv",
    "CartPoleNoVelVectorEnv",
    "Delay",
    "EnvConfig",
    "EnvPoolEnv",
    "EnvPoolVectorEnv",
    "Flicker",
    "MemoryChain",
    "MemoryChainVectorEnv",
    "NavigateAndReturn",
    "NavigateAndReturnVectorEnv",
    "NoVelocity",
    "ObservationNoise",
    "Parity",
    "ParityVectorEnv",
    "RandomStartCue",
    "RepeatPrevious",
    "RepeatPreviousVectorEnv",
    "Symbols",
    "TMaze",
    "TMazeVectorEnv",
    "WithoutBackground",
    "autoreset_mode",
    "check_supported_spaces",
    "describe_space",
    "list_envs",
    "list_wrappers",
    "make_env",
    "make_vector_env",
    "same_spaces",
    "space_from_dict",
    "space_to_dict",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_names(
        __name__,
        __all__,
        (
            "config",
            "envpool",
            "single_env",
            "spaces.serialization",
            "spaces.support",
            "tasks.associative_recall",
            "tasks.memory_chain",
            "tasks.navigate_and_return",
            "tasks.no_velocity",
            "tasks.parity",
            "tasks.repeat_previous",
            "tasks.tmaze",
            "vector_env",
            "wrappers.delay",
            "wrappers.flicker",
            "wrappers.no_velocity",
            "wrappers.observation_noise",
            "wrappers.random_start_cue",
            "wrappers.registry",
            "wrappers.symbols",
            "wrappers.without_background",
        ),
    )

register_envs()
