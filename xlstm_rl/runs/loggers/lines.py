"""Appending whole lines to a file that a disk may refuse."""

import os
from io import FileIO


def append_line(file: FileIO, line: bytes) -> None:
    """Append a line at once, or nothing of it: a part would spoil the next one.

    Args:
        file: open for appending, without a buffer, so that of what was refused nothing is left.
        line: with its end.

    Raises:
        OSError: it cannot be written.
    """
    written = 0
    try:
        while written < len(line):
            written += file.write(line[written:])
    except OSError:
        if written:
            os.ftruncate(file.fileno(), os.fstat(file.fileno()).st_size - written)
        raise
