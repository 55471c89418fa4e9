"""Plain tables: columns that line up on a terminal, in a file and in a pipe."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table as text, two blanks between its columns.

    Args:
        head: the names of the columns.
        rows: a text for each column.
        left: so many columns, the first ones, stand on the left; numbers stand on the right.
    """
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
