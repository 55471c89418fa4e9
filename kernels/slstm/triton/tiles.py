"""Tile sizes: small fixed tables, none of which look at B."""

from typing import NamedTuple

import torch


class SequenceTile(NamedTuple):
    """How the loops over time cut their work."""

    rows: int
    columns: int
    depth: int
    forward_warps: int
    backward_warps: int
    stages: int


class StepTile(NamedTuple):
    """How a step is cut."""

    rows: int
    depth: int
    warps: int
    stages: int


class WeightsTile(NamedTuple):
    """How the product is cut."""

    rows: int
    columns: int
    warps: int
    stages: int


def pad(D: int) -> int:
    """The power of two that holds a head; ``tl.dot`` wants at least 16."""
    return max(16, 1 << (D - 1).bit_length())


def sequence_tile(device_class: str, D: int, dtype: torch.dtype) -> SequenceTile:
    """Of the loops over time, by the dtype of R."""
    columns = pad(D)
    size = 4 * columns * columns * dtype.itemsize
    limit = {"sm_80": 40, "sm_90": 200, "gfx942": 40}[device_class] * 1024
    if size <= limit:
        warps = {16: 1, 32: 4, 64: 8 if dtype.itemsize == 4 else 4, 128: 8}[columns]
        return SequenceTile(16, 0, 0, warps, warps, 1)
    return SequenceTile(16, min(columns, 64), 32, 4, 4, 2)


def step_tile(device_class: str, D: int, dtype: torch.dtype) -> StepTile:
    """Of the step."""
    columns = pad(D)
    warps = {16: 1, 32: 4, 64: 4, 128: 8, 256: 8}[columns]
    return StepTile(16, min(columns, 32), warps, 2)


def weights_tile(device_class: str, D: int, dtype: torch.dtype) -> WeightsTile:
    """Of the product."""
    return WeightsTile(32, min(64, pad(D)), 4, 2)
