"""Tile sizes by device class, dtype and head size: small fixed tables, none of which look at B.

The compile check names those that spill. Hopper's were measured; why: kernels/TRITON.md.
"""

from typing import NamedTuple

import torch


class Tiles(NamedTuple):
    """How the chunkwise kernels cut a head; `warps` and `stages` are those of each launch."""

    rows: int
    """Steps of a tile."""
    per_chunk: int
    """Tiles between two states that are kept: the larger the head, the dearer a state."""
    block: int
    """Columns of K and of V that are multiplied at a time; dq and dk hold all of K."""
    columns: int
    """Columns of V that a program of the output and of dv sums up."""
    block_state: int
    """Rows and columns of a state that a program of the loops over T holds."""
    warps: int
    stages: int


_HALF, _FULL = 2, 4  # bytes of an element

TABLE: dict[tuple[str, int, int], Tiles] = {
    # (device class, bytes of an element, head size up to)
    ("sm_90", _HALF, 32): Tiles(32, 1, 32, 32, 32, 2, 1),
    ("sm_90", _HALF, 64): Tiles(32, 2, 64, 64, 32, 2, 1),
    ("sm_90", _HALF, 128): Tiles(64, 3, 64, 128, 64, 4, 1),
    ("sm_90", _HALF, 256): Tiles(32, 4, 64, 128, 64, 4, 1),
    ("sm_90", _FULL, 32): Tiles(32, 1, 32, 32, 32, 2, 1),
    ("sm_90", _FULL, 64): Tiles(32, 1, 64, 64, 64, 4, 1),
    ("sm_90", _FULL, 128): Tiles(32, 2, 32, 128, 64, 4, 2),
    ("sm_90", _FULL, 256): Tiles(32, 4, 32, 128, 64, 4, 1),
    ("sm_80", _HALF, 32): Tiles(32, 1, 32, 32, 32, 2, 1),
    ("sm_80", _HALF, 64): Tiles(32, 2, 64, 64, 32, 2, 1),
    ("sm_80", _HALF, 128): Tiles(32, 4, 64, 128, 64, 4, 1),
    ("sm_80", _HALF, 256): Tiles(32, 4, 64, 128, 64, 4, 1),
    ("sm_80", _FULL, 32): Tiles(32, 1, 32, 32, 32, 2, 1),
    ("sm_80", _FULL, 64): Tiles(32, 1, 64, 64, 32, 4, 1),
    ("sm_80", _FULL, 128): Tiles(32, 2, 32, 128, 32, 4, 1),
    ("sm_80", _FULL, 256): Tiles(32, 4, 32, 64, 32, 4, 1),
    ("gfx942", _HALF, 32): Tiles(32, 4, 32, 32, 32, 4, 1),
    ("gfx942", _HALF, 64): Tiles(32, 4, 64, 64, 64, 8, 1),
    ("gfx942", _HALF, 128): Tiles(16, 8, 64, 64, 64, 8, 1),
    ("gfx942", _HALF, 256): Tiles(16, 8, 64, 64, 64, 8, 1),
    ("gfx942", _FULL, 32): Tiles(32, 4, 32, 32, 32, 8, 1),
    ("gfx942", _FULL, 64): Tiles(16, 8, 32, 32, 32, 8, 1),
    ("gfx942", _FULL, 128): Tiles(16, 8, 64, 64, 32, 8, 1),
    ("gfx942", _FULL, 256): Tiles(16, 8, 32, 32, 32, 8, 1),
}


def choose_tiles(device_class: str, dtype: torch.dtype, K: int, V: int) -> Tiles:
    """Look up the tiles for a head."""
    size = next(s for s in (32, 64, 128, 256) if max(K, V) <= s)
    return TABLE[device_class, dtype.itemsize, size]


def pad(size: int) -> int:
    """The power of two that holds ``size``; ``tl.dot`` wants at least 16."""
    return max(16, 1 << (size - 1).bit_length())
