"""Plain tables: columns that line up; on a terminal that is too narrow, a few lines a row."""

from collections.abc import Sequence

from xlstm_rl.terminal import packed


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, width: int | None = None
) -> str:
    """Return a table as text, two blanks between its columns.

    Args:
        head: the names of the columns.
        rows: a text for each column.
        left: so many columns, the first ones, stand on the left; numbers stand on the right.
        width: of the terminal; None: there is none.
    """
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        return "\n".join(line for row in rows for line in _record(head, row, left, width))
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _record(head: Sequence[str], row: Sequence[str], left: int, width: int) -> list[str]:
    """Return a row as lines: what names it, then what the columns say."""
    said = [f"{name} {cell}" for name, cell in zip(head[left:], row[left:], strict=True) if cell]
    return [*packed(row[:left], width, 0), *packed(said, width)]
