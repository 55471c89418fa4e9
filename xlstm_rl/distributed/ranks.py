"""What an agent asks of the processes that train with it, and the answers where there are none."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from xlstm_rl.collection.rollout import Rollout

ValueT = TypeVar("ValueT")


class Moments(NamedTuple):
    """Number of values, their mean, and the sum of squared deviations from it; of one shape."""

    numel: Tensor
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Moments":
        """Return those of a tensor of any shape, in float64."""
        x = x.detach().double().flatten()
        if not x.numel():
            zero = x.new_zeros(())
            return cls(zero, zero, zero)
        return cls(x.new_tensor(float(x.numel())), x.mean(), x.var(correction=0) * x.numel())

    @classmethod
    def merged(cls, parts: Tensor) -> "Moments":
        """Return those of several tensors together, from theirs, `[N, ..., 3]`: `[...]` each.

        Exact, by the parallel formula of Chan, Golub and LeVeque (1979).
        """
        count, mean, squares = parts.unbind(-1)
        total = count.sum(0)
        overall = (count * mean).sum(0) / total.clamp(min=1)
        return cls(total, overall, (squares + count * (mean - overall).square()).sum(0))

    def variance(self) -> Tensor:
        """Return the unbiased variance; 0 of fewer than two values."""
        return self.squares / (self.numel - 1).clamp(min=1)


class Ranks:
    """What the processes of a training exchange; of this class: one alone, which exchanges nothing.

    A rank is one of the processes of a training, which hold the same weights, each with
    environments of its own.
    """

    index = 0
    """Number of this process."""

    size = 1
    """How many processes there are."""

    @property
    def is_first(self) -> bool:
        """Whether this process logs and writes checkpoints."""
        return self.index == 0

    @property
    def device_index(self) -> int | None:
        """The CUDA device of this process on its machine; None: whichever is current."""
        return None

    def refuse_differences(self, config: Mapping[str, Any]) -> None:
        """Refuse processes whose configuration (plain data) or versions differ.

        Raises:
            ConfigError: one differs from the first; said in every process.
        """

    def equalize(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors, such as weights, the values that they have in the first process."""

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on one of them."""
        return flag

    def from_first(self, value: ValueT) -> ValueT:
        """Return the value that the first process gave."""
        return value

    def gathered(self, value: ValueT) -> list[ValueT]:
        """Return the values of all, in their order."""
        return [value]

    def gathered_tensors(self, own: Tensor) -> list[Tensor]:
        """Return tensors of one shape and dtype, one of each process, in their order."""
        return [own]

    def share_episodes(self, rollout: Rollout) -> None:
        """Let each know which episodes ended in all rollouts, and whether every step is valid."""

    def merging(self, *modules: nn.Module | None) -> AbstractContextManager[None]:
        """Merge what running statistics of modules take inside the block, over all processes."""
        return nullcontext()

    def moments(self, *tensors: Tensor) -> list[Moments]:
        """Return the moments of the values of all, of each tensor, in one message."""
        return [Moments.of(x) for x in tensors]

    def share(self, valid: Tensor | None) -> Tensor | None:
        """Return the factor that makes the average over processes a mean over all valid steps.

        Args:
            valid: of this process's minibatch; None: every step of every process is valid.

        Returns:
            This process's number of valid steps over the mean of all; None: 1.
        """
        return None

    def average(self, parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
        """Average gradients, and scalars beside them, over all processes, in place."""


ALONE = Ranks()
"""Where there is one process."""


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Return tensors one behind the other, as one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
