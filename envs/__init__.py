"""Gymnasium environments, wrappers and the construction of vector environments.

Importing this package registers the `xlstm_rl/...` environments with Gymnasium.
"""

if __name__ != "xlstm_rl.envs":
    raise ImportError("this folder is the package xlstm_rl.envs: import it by that name")

from xlstm_rl.envs.associative_recall import AssociativeRecall, AssociativeRecallVectorEnv
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.make import autoreset_mode, make_env, make_vector_env
from xlstm_rl.envs.memory_chain import MemoryChain, MemoryChainVectorEnv
from xlstm_rl.envs.navigate_and_return import NavigateAndReturn, NavigateAndReturnVectorEnv
from xlstm_rl.envs.no_velocity import CartPoleNoVelVectorEnv, NoVelocity
from xlstm_rl.envs.parity import Parity, ParityVectorEnv
from xlstm_rl.envs.pool import EnvPoolEnv, EnvPoolVectorEnv
from xlstm_rl.envs.registration import list_envs, register_envs
from xlstm_rl.envs.repeat_previous import RepeatPrevious, RepeatPreviousVectorEnv
from xlstm_rl.envs.space_files import space_from_dict, space_to_dict
from xlstm_rl.envs.spaces import check_supported_spaces, describe_space, same_spaces
from xlstm_rl.envs.symbols import Symbols
from xlstm_rl.envs.tmaze import TMaze, TMazeVectorEnv
from xlstm_rl.envs.without_background import WithoutBackground
from xlstm_rl.envs.wrappers import Delay, Flicker, ObservationNoise, RandomStartCue
from xlstm_rl.envs.wrapping import list_wrappers

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

register_envs()
