"""Every random stream of a run, spawned from its one seed.

A run's seed and neighbouring seeds share nothing, and neither do the purposes of one seed: all come
from `numpy.random.SeedSequence`, which mixes seed, purpose and index into unrelated numbers.
"""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper
from numpy.random import SeedSequence

from xlstm_rl.envs.envpool import EnvPoolVectorEnv

Purpose = Literal[
    "weights",
    "environments",
    "actions",
    "shuffling",
    "evaluation",
    "evaluation_actions",
    "evaluation_global",
    "resuming",
    "periodic_evaluation",
]
"""What a stream is for. The order is part of every result: new purposes go to the end."""

_PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
_BITS = 31
"""Some environments keep their seed in a signed 32-bit integer."""

_streams_lock = threading.RLock()
"""Held by who has begun a global stream anew: another thread would begin or save it in between."""


def _unlock_in_child() -> None:
    """Give a forked process a lock of its own: the thread that may hold it is not there."""
    global _streams_lock
    _streams_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)

_TAKE_A_LIST = (SyncVectorEnv.reset, AsyncVectorEnv.reset, EnvPoolVectorEnv.reset)


def spawn_seed(seed: int, purpose: Purpose, index: int = 0) -> int:
    """Return the seed of one stream, an integer of 31 bits.

    Args:
        seed: of the run or of the evaluation.
        purpose: what the stream is for.
        index: which of the streams for that purpose, such as the environment or the episode. It
            does not matter how many others there are.
    """
    key = (_PURPOSES.index(purpose), index)
    (word,) = SeedSequence(seed, spawn_key=key).generate_state(1).tolist()
    return int(word) >> (32 - _BITS)


def reset_seed(env: VectorEnv[Any, Any, Any], seed: int, first: int = 0) -> int | list[int]:
    """Return what a vector environment of a run is reset with.

    That is one seed per environment where it takes them: in Gymnasium's and EnvPool's vectors, also
    inside Gymnasium's wrappers. Any other vector gets one seed, as `VectorEnv.reset` has it, and
    seeds its environments from that.

    Args:
        env: the vector environment.
        seed: of the run.
        first: number of the first of these environments in the run.
    """
    if _takes_a_list(env):
        indices = range(first, first + env.num_envs)
        return [spawn_seed(seed, "environments", index) for index in indices]
    # below that, vectors may count on from it, one seed for each environment
    room: int = 2**_BITS - env.num_envs
    return spawn_seed(seed, "environments", first) % room


@contextmanager
def torch_stream_restored(*devices: torch.device) -> Iterator[None]:
    """Let torch's global stream afterwards stand where it stands now.

    Threads that come here, or to `global_streams`, wait for each other: what one of them begins at
    a seed no other one begins, draws from or restores meanwhile.

    Args:
        devices: whose stream is restored too, where it is a GPU.
    """
    gpus = {device for device in devices if device.type == "cuda"}
    with _streams_lock, torch.random.fork_rng([*gpus]):
        yield


@contextmanager
def global_streams(seed: int, device: torch.device) -> Iterator[None]:
    """Begin Python's, NumPy's and torch's global streams at a seed, and restore them afterwards.

    Some environments draw from them: what is played inside then follows from the seed, and what
    runs outside does not notice. Threads wait for each other, as in `torch_stream_restored`.
    """
    with torch_stream_restored(device):
        before, numpy_before = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(numpy_before)


def streams_state() -> dict[str, Any]:
    """Return where the global streams of Python, NumPy and torch stand, as plain values."""
    with _streams_lock:
        numpy_state: Any = np.random.get_state(legacy=False)
        key = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
        on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
        return {
            "python": random.getstate(),
            "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": key}},
            "torch": torch.default_generator.get_state(),
            "cuda": torch.cuda.get_rng_state_all() if on_gpu else [],
        }


def load_streams(state: dict[str, Any]) -> None:
    """Let the global streams go on where `streams_state` found them."""
    inner = state["numpy"]["state"]
    key = inner["key"].numpy().astype(np.uint32)
    with _streams_lock:
        random.setstate(state["python"])
        np.random.set_state({**state["numpy"], "state": {**inner, "key": key}})
        torch.default_generator.set_state(state["torch"])
        if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])


def _takes_a_list(env: VectorEnv[Any, Any, Any]) -> bool:
    while isinstance(env, VectorWrapper):
        if type(env).reset.__module__.partition(".")[0] != "gymnasium":
            return False  # somebody's own, who may compute with the seed
        env = env.env
    return type(env).reset in _TAKE_A_LIST
