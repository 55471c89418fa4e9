"""Tile sizes by device class, dtype and head size: small fixed tables, none of which look at B.

Held to compile without a spill by the compile check; the reasons are in README.md beside this.
"""

from typing import NamedTuple

import torch


class SequenceTile(NamedTuple):
    """How the loops over time cut their work; a program has one head of `rows` environments."""

    rows: int
    columns: int
    """0: R is on chip. Else it is streamed, this many columns of the head at a time."""
    depth: int
    """Of a product where R is streamed."""
    forward_warps: int
    """As long as R is on chip: 8 columns to a warp, or 16 where that would spill."""
    backward_warps: int
    at_once: int
    """Of the four gates' gradients, how many are exchanged at once: 4 or 2."""
    stages: int


class StepTile(NamedTuple):
    """How a step is cut; a program has one head of `rows` environments."""

    rows: int
    depth: int
    warps: int
    stages: int


class WeightsTile(NamedTuple):
    """How the product over all steps and rows is cut: a square of `columns`, `rows` at a time."""

    rows: int
    columns: int
    warps: int
    stages: int


_HALF, _FULL = 2, 4  # bytes of an element

# (device class, bytes of an element, head size up to)
SEQUENCE_TABLE: dict[tuple[str, int, int], SequenceTile] = {
    ("sm_90", _HALF, 16): SequenceTile(16, 0, 0, 2, 2, 4, 1),
    ("sm_90", _HALF, 32): SequenceTile(16, 0, 0, 4, 4, 4, 1),
    ("sm_90", _HALF, 64): SequenceTile(16, 0, 0, 8, 8, 4, 1),
    ("sm_90", _HALF, 128): SequenceTile(16, 0, 0, 8, 8, 4, 1),
    ("sm_90", _HALF, 256): SequenceTile(16, 64, 64, 8, 8, 4, 2),
    ("sm_90", _FULL, 16): SequenceTile(16, 0, 0, 1, 1, 4, 1),
    ("sm_90", _FULL, 32): SequenceTile(16, 0, 0, 4, 4, 4, 1),
    ("sm_90", _FULL, 64): SequenceTile(16, 0, 0, 8, 8, 2, 1),
    ("sm_90", _FULL, 128): SequenceTile(16, 64, 32, 8, 8, 4, 2),
    ("sm_90", _FULL, 256): SequenceTile(16, 64, 32, 8, 8, 4, 2),
    ("sm_80", _HALF, 16): SequenceTile(16, 0, 0, 1, 2, 4, 1),
    ("sm_80", _HALF, 32): SequenceTile(16, 0, 0, 4, 4, 4, 1),
    ("sm_80", _HALF, 64): SequenceTile(16, 0, 0, 4, 8, 2, 1),
    ("sm_80", _HALF, 128): SequenceTile(16, 64, 64, 8, 8, 4, 2),
    ("sm_80", _HALF, 256): SequenceTile(16, 64, 64, 8, 8, 4, 2),
    ("sm_80", _FULL, 16): SequenceTile(16, 0, 0, 1, 1, 4, 1),
    ("sm_80", _FULL, 32): SequenceTile(16, 0, 0, 4, 4, 4, 1),
    ("sm_80", _FULL, 64): SequenceTile(16, 64, 64, 8, 8, 4, 2),
    ("sm_80", _FULL, 128): SequenceTile(16, 64, 64, 8, 8, 4, 2),
    ("sm_80", _FULL, 256): SequenceTile(16, 64, 64, 8, 8, 4, 2),
    ("gfx942", _HALF, 16): SequenceTile(16, 0, 0, 1, 1, 4, 1),
    ("gfx942", _HALF, 32): SequenceTile(16, 0, 0, 1, 2, 4, 1),
    ("gfx942", _HALF, 64): SequenceTile(16, 0, 0, 4, 4, 4, 1),
    ("gfx942", _HALF, 128): SequenceTile(16, 64, 32, 4, 4, 4, 2),
    ("gfx942", _HALF, 256): SequenceTile(16, 64, 32, 4, 4, 4, 2),
    ("gfx942", _FULL, 16): SequenceTile(16, 0, 0, 1, 1, 4, 1),
    ("gfx942", _FULL, 32): SequenceTile(16, 0, 0, 1, 2, 4, 1),
    ("gfx942", _FULL, 64): SequenceTile(16, 64, 32, 4, 4, 4, 2),
    ("gfx942", _FULL, 128): SequenceTile(16, 64, 32, 4, 4, 4, 2),
    ("gfx942", _FULL, 256): SequenceTile(16, 64, 32, 4, 4, 4, 2),
}

STEP_TABLE: dict[tuple[str, int, int], StepTile] = {
    ("sm_90", _HALF, 16): StepTile(16, 16, 1, 2),
    ("sm_90", _HALF, 32): StepTile(16, 32, 4, 2),
    ("sm_90", _HALF, 64): StepTile(16, 32, 8, 2),
    ("sm_90", _HALF, 128): StepTile(16, 32, 8, 2),
    ("sm_90", _HALF, 256): StepTile(16, 32, 8, 2),
    ("sm_90", _FULL, 16): StepTile(16, 16, 1, 2),
    ("sm_90", _FULL, 32): StepTile(16, 32, 4, 2),
    ("sm_90", _FULL, 64): StepTile(16, 32, 8, 2),
    ("sm_90", _FULL, 128): StepTile(16, 32, 8, 2),
    ("sm_90", _FULL, 256): StepTile(16, 32, 8, 2),
    ("sm_80", _HALF, 16): StepTile(16, 16, 1, 2),
    ("sm_80", _HALF, 32): StepTile(16, 32, 4, 2),
    ("sm_80", _HALF, 64): StepTile(16, 32, 8, 2),
    ("sm_80", _HALF, 128): StepTile(16, 32, 8, 2),
    ("sm_80", _HALF, 256): StepTile(16, 32, 8, 2),
    ("sm_80", _FULL, 16): StepTile(16, 16, 1, 2),
    ("sm_80", _FULL, 32): StepTile(16, 32, 4, 2),
    ("sm_80", _FULL, 64): StepTile(16, 32, 8, 2),
    ("sm_80", _FULL, 128): StepTile(16, 32, 8, 2),
    ("sm_80", _FULL, 256): StepTile(16, 16, 8, 2),
    ("gfx942", _HALF, 16): StepTile(16, 16, 1, 1),
    ("gfx942", _HALF, 32): StepTile(16, 32, 4, 1),
    ("gfx942", _HALF, 64): StepTile(16, 32, 4, 1),
    ("gfx942", _HALF, 128): StepTile(16, 32, 8, 1),
    ("gfx942", _HALF, 256): StepTile(16, 32, 8, 1),
    ("gfx942", _FULL, 16): StepTile(16, 16, 1, 1),
    ("gfx942", _FULL, 32): StepTile(16, 32, 4, 1),
    ("gfx942", _FULL, 64): StepTile(16, 32, 4, 1),
    ("gfx942", _FULL, 128): StepTile(16, 32, 8, 1),
    ("gfx942", _FULL, 256): StepTile(16, 16, 8, 1),
}

WEIGHTS_TABLE: dict[tuple[str, int, int], WeightsTile] = {
    ("sm_90", _HALF, 16): WeightsTile(32, 16, 4, 2),
    ("sm_90", _HALF, 32): WeightsTile(32, 32, 4, 2),
    ("sm_90", _HALF, 64): WeightsTile(32, 64, 4, 2),
    ("sm_90", _HALF, 128): WeightsTile(32, 64, 4, 2),
    ("sm_90", _HALF, 256): WeightsTile(32, 64, 4, 2),
    ("sm_90", _FULL, 16): WeightsTile(32, 16, 4, 2),
    ("sm_90", _FULL, 32): WeightsTile(32, 32, 4, 2),
    ("sm_90", _FULL, 64): WeightsTile(32, 64, 4, 2),
    ("sm_90", _FULL, 128): WeightsTile(32, 64, 4, 2),
    ("sm_90", _FULL, 256): WeightsTile(32, 64, 4, 2),
    ("sm_80", _HALF, 16): WeightsTile(32, 16, 4, 2),
    ("sm_80", _HALF, 32): WeightsTile(32, 32, 4, 2),
    ("sm_80", _HALF, 64): WeightsTile(32, 64, 4, 2),
    ("sm_80", _HALF, 128): WeightsTile(32, 64, 4, 2),
    ("sm_80", _HALF, 256): WeightsTile(32, 64, 4, 2),
    ("sm_80", _FULL, 16): WeightsTile(32, 16, 4, 2),
    ("sm_80", _FULL, 32): WeightsTile(32, 32, 4, 2),
    ("sm_80", _FULL, 64): WeightsTile(32, 64, 4, 2),
    ("sm_80", _FULL, 128): WeightsTile(32, 64, 4, 2),
    ("sm_80", _FULL, 256): WeightsTile(32, 64, 4, 2),
    ("gfx942", _HALF, 16): WeightsTile(32, 16, 4, 2),
    ("gfx942", _HALF, 32): WeightsTile(32, 32, 4, 2),
    ("gfx942", _HALF, 64): WeightsTile(32, 64, 4, 2),
    ("gfx942", _HALF, 128): WeightsTile(32, 64, 4, 2),
    ("gfx942", _HALF, 256): WeightsTile(32, 64, 4, 2),
    ("gfx942", _FULL, 16): WeightsTile(32, 16, 4, 2),
    ("gfx942", _FULL, 32): WeightsTile(32, 32, 4, 2),
    ("gfx942", _FULL, 64): WeightsTile(32, 64, 4, 2),
    ("gfx942", _FULL, 128): WeightsTile(32, 64, 4, 2),
    ("gfx942", _FULL, 256): WeightsTile(32, 64, 4, 2),
}


def pad(D: int) -> int:
    """The power of two that holds a head; ``tl.dot`` wants at least 16."""
    return max(16, 1 << (D - 1).bit_length())


def sequence_tile(device_class: str, D: int, dtype: torch.dtype) -> SequenceTile:
    """Of the loops over time, by the dtype of R."""
    return SEQUENCE_TABLE[device_class, dtype.itemsize, pad(D)]


def step_tile(device_class: str, D: int, dtype: torch.dtype) -> StepTile:
    """Of the step, by the dtype of R."""
    return STEP_TABLE[device_class, dtype.itemsize, pad(D)]


def weights_tile(device_class: str, D: int, dtype: torch.dtype) -> WeightsTile:
    """Of the product, by the dtype of x."""
    return WEIGHTS_TABLE[device_class, dtype.itemsize, pad(D)]
