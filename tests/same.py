"""Whether two states are the same to the bit."""

from typing import Any

import torch


def assert_same(one: Any, other: Any, path: str = "") -> None:
    """Hold nested dicts, sequences, tensors and values to be equal; a NaN equals a NaN."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for name in one:
            assert_same(one[name], other[name], f"{path}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other or (one != one and other != other), (path, one, other)
