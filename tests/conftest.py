"""Small environments whose every number is known beforehand."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from xlstm_rl.versions import installed_version

from .fewer_cases import mark_what_is_left_out
from .start_methods import forked, usual_start_method
from .unchanged_kernels import mark_what_is_unchanged
from .wandb_modes import wandb_disabled, wandb_offline

__all__ = ["forked", "wandb_disabled", "wandb_offline"]  # fixtures of files of their own

if not torch.cuda.is_available():
    # The Triton kernels are tested on every machine; read when a kernel's module is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")


class Countdown(gymnasium.Env[np.ndarray, int]):
    """Observes `[episode, step]`; episode e lasts `lengths[e % n]` steps and pays `step + 1`.

    Ends by termination, or by truncation where `truncate` says so; the action changes nothing.
    """

    def __init__(self, lengths: tuple[int, ...], truncate: tuple[bool, ...]) -> None:
        self.observation_space = gymnasium.spaces.Box(-1e6, 1e6, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.lengths, self.truncate = lengths, truncate
        self.episode, self.t = -1, 0

    def _observe(self) -> np.ndarray:
        return np.array([self.episode, self.t], np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        n = self.episode % len(self.lengths)
        ended = self.t == self.lengths[n]
        cut = ended and self.truncate[n]
        return self._observe(), float(self.t), ended and not cut, cut, {}


def pytest_configure(config: pytest.Config) -> None:
    """Let signals work as in a terminal: what starts tests in the background ignores some."""
    if installed_version("wandb") < (0, 21):
        # `wandb.teardown()`, which only tests call, leaves its socket to the garbage collector.
        config.addinivalue_line(
            "filterwarnings",
            "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning",
        )
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture
def countdown() -> Callable[..., Countdown]:
    """The class itself, for tests that make their own."""
    return Countdown


@pytest.fixture
def countdown_vector() -> Callable[[AutoresetMode], SyncVectorEnv]:
    """Three environments with episodes of different lengths and endings, in a given mode."""

    def make(mode: AutoresetMode) -> SyncVectorEnv:
        return SyncVectorEnv(
            [
                lambda: Countdown((3, 5), (False, True)),
                lambda: Countdown((4,), (True,)),
                lambda: Countdown((1, 2, 7), (False, True, False)),
            ],
            autoreset_mode=mode,
        )

    return make


class AnySpaces(gymnasium.Env[Any, Any]):
    """Observes samples of any space and refuses actions outside of any other.

    Episodes last 3, 4 and 5 steps in turn and end by termination and truncation in turn; every
    step pays a reward drawn between -1 and 1. With `mask_in` ("info" or "observation") a new
    random action mask holds at every step, and an action that it forbids is refused.
    """

    def __init__(
        self, observation_space: Any, action_space: Any, mask_in: str | None = None
    ) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.mask_in, self.episode = mask_in, 0

    def _observe(self) -> Any:
        obs, info = self.observation_space.sample(), {}
        if self.mask_in is not None:
            self.mask = random_mask(self.action_space, self.np_random)
            (obs if self.mask_in == "observation" else info)["action_mask"] = self.mask
        return obs, info

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.episode, self.t = self.episode + 1, 0
        return self._observe()

    def step(self, action: Any) -> Any:
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        if self.mask_in is not None and not allowed(self.action_space, self.mask, action):
            raise ValueError(f"{action!r} is forbidden by {self.mask!r}")
        self.t += 1
        ended, cut = self.t == 3 + self.episode % 3, self.episode % 2 == 0
        reward = float(self.np_random.uniform(-1, 1))
        obs, info = self._observe()
        if ended and self.mask_in == "info":
            info = {}  # nothing can be done in a final state
        return obs, reward, ended and not cut, ended and cut, info


def random_mask(space: Any, rng: np.random.Generator) -> Any:
    """Return a mask in the form of `space.sample(mask=...)` that allows something everywhere."""

    def choices(n: int) -> np.ndarray:
        mask = (rng.random(n) < 0.5).astype(np.int8)
        mask[rng.integers(n)] = 1
        return mask

    if isinstance(space, gymnasium.spaces.Dict):
        return {key: random_mask(part, rng) for key, part in space.items()}
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(random_mask(part, rng) for part in space)
    if isinstance(space, gymnasium.spaces.Discrete):
        return choices(int(space.n))
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        nested = [tuple(map(choices, row)) for row in np.atleast_2d(space.nvec)]
        return tuple(nested) if space.nvec.ndim == 2 else nested[0]
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return rng.integers(3, size=space.shape, dtype=np.int8)
    return None


def allowed(space: Any, mask: Any, action: Any) -> bool:
    """Return whether a mask allows an action, one choice after the other."""
    if isinstance(space, gymnasium.spaces.Dict):
        return all(allowed(part, mask[key], action[key]) for key, part in space.items())
    if isinstance(space, gymnasium.spaces.Tuple):
        parts = zip(space, mask, action, strict=True)
        return all(allowed(part, m, a) for part, m, a in parts)
    if isinstance(space, gymnasium.spaces.Discrete):
        return bool(mask[action - space.start])
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        if space.nvec.ndim == 2:
            mask = [one for row in mask for one in row]
        index = (action - space.start).ravel()
        return all(one[i] for one, i in zip(mask, index, strict=True))
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return bool(((mask == 2) | (mask == action)).all())
    return True


@pytest.fixture
def any_spaces() -> type[AnySpaces]:
    """The class itself."""
    return AnySpaces


class _RefuseLooks(TorchDispatchMode):
    """Refuses operations whose result the host must know: for a GPU it would wait."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(one is not None and one.dtype == torch.bool for one in indices)
        if name.startswith("index_put") and args[2].dim() == 0:
            raise AssertionError(f"{func} brings a number from the host: use index_fill_")
        looks = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal")
        if by_mask or name in looks:
            raise AssertionError(f"{func} would wait for the device")
        result = func(*args, **(kwargs or {}))
        if name in ("_to_copy", "to") and result.device != args[0].device:
            raise AssertionError(f"{func} moves a tensor to {result.device}")
        return result


class _RefuseArrays(TorchFunctionMode):
    """Refuses to turn tensors into Python's numbers or NumPy's arrays."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("numpy", "tolist", "item", "cpu", "__array__", "__bool__"):
            raise AssertionError(f"{name} brings a tensor to the host")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def looking_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], AbstractContextManager[None]]:
    """A context in which an operation fails that would make the host wait for a GPU, on any device.

    It sees the operations, on a CPU too, and not what a GPU does with them: see the next one.
    """

    def from_numpy(array: np.ndarray) -> None:
        raise AssertionError("from_numpy brings an array from the host")

    @contextmanager
    def watch() -> Iterator[None]:
        with monkeypatch.context() as patch, _RefuseArrays(), _RefuseLooks():
            patch.setattr(torch, "from_numpy", from_numpy)
            yield

    return watch


@pytest.fixture
def waiting_is_an_error() -> Callable[[], AbstractContextManager[None]]:
    """A context in which an operation fails that makes the host wait for the GPU."""

    def set_mode(mode: str) -> None:
        with warnings.catch_warnings():  # it says that it is a prototype
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode(mode)

    @contextmanager
    def watch() -> Iterator[None]:
        torch.cuda.synchronize()
        set_mode("error")
        try:
            yield
        finally:
            set_mode("default")

    return watch


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)  # before pytest looks which marks are asked for
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what a run leaves out; where there is no GPU, `-m gpu` says so instead of failing."""
    mark_what_is_left_out(items)
    mark_what_is_unchanged(items)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device: torch.cuda.is_available() is false here")
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Take back what an import of TorchRL's has asked for in the whole process."""
    usual_start_method()
