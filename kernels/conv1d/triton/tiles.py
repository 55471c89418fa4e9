"""How large the tiles of the convolution are: small fixed tables, the same for every batch size."""

from typing import NamedTuple


class Tile(NamedTuple):
    """What one program holds at a time."""

    rows: int
    columns: int
    num_warps: int
    passes: int = (
        1  # row tiles that a program walks through, to sum over more rows before it writes
    )


# Memory is what this operation waits for: so that many warps fit beside each other, a thread holds
# 8 or 16 numbers of a tile. A row of a tile is 256 bytes or more, and every tap but the first finds
# its inputs in the L1 cache. AMD's warps have 64 threads.
_TILES = {
    "sm_80": {
        "forward": Tile(32, 128, 8),
        "weight_gradient": Tile(16, 128, 8, 8),
        "input_gradient": Tile(32, 128, 8),
        "step": Tile(8, 128, 4),
    },
    "sm_90": {
        "forward": Tile(32, 128, 8),
        "weight_gradient": Tile(16, 128, 8, 8),
        "input_gradient": Tile(32, 128, 8),
        "step": Tile(8, 128, 4),
    },
    "gfx942": {
        "forward": Tile(32, 128, 4),
        "weight_gradient": Tile(16, 128, 4, 8),
        "input_gradient": Tile(32, 128, 4),
        "step": Tile(8, 128, 2),
    },
}
_LEAST_COLUMNS = 16
_LEAST_ROWS = 4


def choose_tile(device_class: str, kernel: str, steps: int | None, columns: int, taps: int) -> Tile:
    """The table's tile, no larger than ``steps`` by ``columns`` need.

    Where there are few columns, a program takes more rows instead, and fewer where there are more
    taps than the usual 4, each of which has loads under way. ``steps`` is ``None`` where the rows
    are those of the batch, whose size changes nothing here.
    """
    tile = _TILES[device_class][kernel]
    width = min(tile.columns, max(_LEAST_COLUMNS, power_of_two(columns)))
    rows = tile.rows * (tile.columns // width)
    if steps is None:
        return tile._replace(rows=rows, columns=width)
    rows = max(_LEAST_ROWS, rows * 4 // max(4, power_of_two(taps)))
    rows = min(rows, power_of_two(steps))
    return tile._replace(rows=rows, columns=width, passes=min(tile.passes, -(-steps // rows)))


def power_of_two(n: int) -> int:
    """The least power of two that is not less than ``n``."""
    return 1 << max(n - 1, 0).bit_length()
