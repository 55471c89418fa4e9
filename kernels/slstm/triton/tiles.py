"""Tile sizes: a small fixed table, by device class, head size and the dtype of R."""

from typing import NamedTuple

import torch


class Tile(NamedTuple):
    """How a kernel cuts its work."""

    rows: int
    columns: int
    on_chip: bool
    depth: int
    warps: int
    stages: int


def sequence_tile(device_class: str, D: int, dtype: torch.dtype) -> Tile:
    """For the loops over time; ``dtype`` is that of R."""
    columns = max(16, 1 << (D - 1).bit_length())
    size = 4 * columns * columns * dtype.itemsize
    limit = {"sm_80": 40, "sm_90": 200, "gfx942": 40}[device_class] * 1024
    on = size <= limit
    warps = {16: 1, 32: 4, 64: 8 if dtype.itemsize == 4 else 4, 128: 8, 256: 16}[columns]
    return Tile(16, columns, on, min(columns, 32), warps, 1 if on else 2)


def step_tile(device_class: str, D: int, dtype: torch.dtype) -> Tile:
    """For a single step."""
    columns = max(16, 1 << (D - 1).bit_length())
    warps = {16: 1, 32: 4, 64: 4, 128: 8, 256: 16}[columns]
    return Tile(16, columns, False, min(columns, 32), warps, 2)


def weights_tile(device_class: str, D: int, dtype: torch.dtype) -> Tile:
    """For the gradients of R and b."""
    columns = min(64, max(16, 1 << (D - 1).bit_length()))
    return Tile(32, columns, False, 0, 4, 2)
