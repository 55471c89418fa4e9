"""The processes of a `torch.distributed` process group as ranks of one training."""

import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xlstm_rl.collection.rollout import Rollout
from xlstm_rl.config.errors import ConfigError, one_line
from xlstm_rl.distributed.episodes import share_episodes
from xlstm_rl.distributed.ranks import ALONE, Moments, Ranks, ValueT, flat
from xlstm_rl.errors import TrainingError
from xlstm_rl.normalization import RunningMoments

_MAY_DIFFER = ("device", "run_dir")
"""Options that a process may have for itself."""

_PACKAGES = ("xlstm_rl", "torch", "gymnasium", "numpy")


def current_ranks() -> Ranks:
    """Return the ranks of the default process group; without one, this process alone."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return ALONE
    return ProcessGroupRanks()


class ProcessGroupRanks(Ranks):
    """The processes of the default group: gloo on CPUs, NCCL between GPUs.

    Every method but the properties is to be called on all of them, in the same order.

    Raises:
        TrainingError: in every method, where another process has died or fallen silent.
    """

    def __init__(self) -> None:
        self.index, self.size = dist.get_rank(), dist.get_world_size()
        self._host: Any = None

    @property
    def device_index(self) -> int:
        """The CUDA device of this process on its machine."""
        return int(os.environ.get("LOCAL_RANK", self.index % max(torch.cuda.device_count(), 1)))

    def refuse_differences(self, config: Mapping[str, Any]) -> None:
        """Refuse processes whose configuration (plain data) or versions differ."""
        refuse_differences(self.gathered(described(config)))

    def equalize(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors, such as weights, the values that they have in the first process."""
        with self._answering(), torch.no_grad():
            for tensor in tensors:
                whole = tensor.detach().contiguous()
                dist.broadcast(whole, 0, group=self._group(whole))
                tensor.detach().copy_(whole)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on one of them."""
        found = torch.tensor([float(flag)])
        with self._answering():
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self._group(found))
        return bool(found.item())

    def from_first(self, value: ValueT) -> ValueT:
        """Return the value that the first process gave."""
        return self.gathered(value if self.is_first else None)[0]  # type: ignore[return-value]

    def gathered(self, value: ValueT) -> list[ValueT]:
        """Return the values of all, in their order."""
        found: list[Any] = [None] * self.size
        with self._answering():
            dist.all_gather_object(found, value, group=self._host_group())
        return found

    def share_episodes(self, rollout: Rollout) -> None:
        """Let each know which episodes ended in all rollouts, and whether every step is valid."""
        share_episodes(rollout, self)

    @contextmanager
    def merging(self, *modules: nn.Module | None) -> Iterator[None]:
        """Merge what running statistics of modules take inside the block, over all processes."""
        found = [
            part
            for module in modules
            if module is not None
            for part in module.modules()
            if isinstance(part, RunningMoments)
        ]
        for moments in found:
            moments.gather = self.gathered_tensors
        try:
            yield
        finally:
            for moments in found:
                moments.gather = None

    def moments(self, *tensors: Tensor) -> list[Moments]:
        """Return the moments of the values of all, of each tensor, in one message."""
        own = torch.stack([torch.stack(Moments.of(x)) for x in tensors])
        parts = torch.stack(self.gathered_tensors(own), 1)
        return [Moments.merged(part) for part in parts]

    def share(self, valid: Tensor | None) -> Tensor | None:
        """Return the factor that makes the average over processes a mean over all valid steps."""
        if valid is None:
            return None
        own = valid.sum().float()
        total = own.clone()
        with self._answering():
            dist.all_reduce(total, group=self._group(total))
        return own * self.size / total.clamp(min=1)

    def average(self, parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
        """Average gradients, and scalars beside them, in one message."""
        grads = [one.grad for one in parameters if one.grad is not None]
        parts = [*grads, *values]
        message = flat(parts)
        with self._answering():
            dist.all_reduce(message, group=self._group(message))
        message /= self.size
        for part, mean in zip(parts, message.split([one.numel() for one in parts]), strict=True):
            part.copy_(mean.view_as(part))

    def gathered_tensors(self, own: Tensor) -> list[Tensor]:
        """Return tensors of one shape and dtype, one of each process, in their order."""
        found = [torch.empty_like(own) for _ in range(self.size)]
        with self._answering():
            dist.all_gather(found, own, group=self._group(own))
        return found

    def _group(self, tensor: Tensor) -> Any:
        """Return the group that takes a tensor: the default one, if it has its device."""
        return self._host_group() if tensor.device.type == "cpu" else None

    def _host_group(self) -> Any:
        """Return the group for tensors in host memory and plain values."""
        if self._host is None:
            with self._answering():
                takes = "cpu" in dist.get_backend_config()
                self._host = dist.group.WORLD if takes else dist.new_group(backend="gloo")
        return self._host

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Say in a line that another process no longer answers."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"process {self.index} of {self.size}: another one has ended or no longer answers "
                f"({_reason(error)}); what was saved stays"
            ) from error


def described(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what all processes must have in common, by name."""
    found = {f"version of {name}": _version(name) for name in _PACKAGES}
    found["version of python"] = platform.python_version()
    shown = {name: value for name, value in config.items() if name not in _MAY_DIFFER}
    return found | dict(_leaves(shown))


def refuse_differences(descriptions: Sequence[Mapping[str, str]]) -> None:
    """Refuse processes that differ from the first one.

    Raises:
        ConfigError: one does; the first difference is named.
    """
    first = descriptions[0]
    for rank, other in enumerate(descriptions):
        for name in sorted(first.keys() | other.keys()):
            own, theirs = first.get(name, "none"), other.get(name, "none")
            if own != theirs:
                raise ConfigError(
                    f"process {rank} differs from process 0 in {name}: {theirs} came, expected "
                    f"{own}; start all with the same command, in the same environment"
                )


def _reason(error: Exception) -> str:
    """Return the first sentence of what a backend says, without the place in its source."""
    return re.sub(r"^\[\S+\] ", "", one_line(error)).partition(". ")[0][:120]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, one in value.items():
            yield from _leaves(one, f"{path}.{name}" if path else str(name))
    else:
        yield path, repr(value)
