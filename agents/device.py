"""The device and the CPU threads that an agent computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from xlstm_rl.config import ConfigError
from xlstm_rl.kernels.native.library import native_threads
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.native_step import is_native


def resolve_device(name: str, index: int | None = None) -> torch.device:
    """Return the device for a configuration's name.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        index: which CUDA device `auto` and `cuda` mean; None: the current one.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and index is not None:
        name = f"cuda:{index}"
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # of `meta` there is no number to be had
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device={name!r} cannot be used here ({reason}): expected {', '.join(_devices())}"
        ) from error
    return device


def _devices() -> list[str]:
    """What `resolve_device` takes here."""
    found = ["auto", "cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads, and the native backend as many; 0: as torch likes.

    Sums are rounded differently by other numbers of them, and so are the orthogonal matrices that
    the weights start from: a seed gives the same run in every shell only with a fixed number.
    """
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def learning_threads(count: int, network: ActorCritic) -> Iterator[None]:
    """As `torch_threads`, but where the network runs in C the threads are those of C alone.

    What torch has to do beside it is too small to share. And behind every such operation torch's
    second thread spins for a while, on the very core that C's second thread needs.
    """
    count = count or torch.get_num_threads()
    in_c = count > 1 and is_native(network)
    with torch_threads(1 if in_c else count), native_threads(count if in_c else None):
        yield
