"""Overwriting a state from a kernel, which torch does not see by itself."""

from collections.abc import Iterable

from torch import Tensor
from torch.autograd.graph import increment_version


def has_own_memory(s: Tensor) -> bool:
    """Whether no element of ``s`` lies where another one does, as expanded ones do."""
    return all(stride > 0 or size == 1 for stride, size in zip(s.stride(), s.shape, strict=True))


def note_overwritten(tensors: Iterable[Tensor]) -> None:
    """Tell autograd that a kernel wrote there: a backward that had kept one is refused."""
    increment_version(tuple(tensors))
