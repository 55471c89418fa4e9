"""Files that are whole at every moment, and numbers in files that may not be."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_DIGITS = 18  # of a number of 64 bits


def step_in(text: str | None) -> int | None:
    """The environment steps that a text in a file says; None: it says none.

    Python refuses numbers of thousands of digits; a damaged file may hold one.
    """
    is_one = text is not None and text.isdecimal() and len(text) <= _DIGITS
    return int(text) if is_one and text is not None else None


_DRAFT = re.compile(r"\..+\.\d+\.part(\.\w+)?")


def is_draft(path: Path) -> bool:
    """Whether a file has the name of one that `replacing` lends: a killed process left it."""
    return _DRAFT.fullmatch(path.name) is not None


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when it is complete.

    A process that is killed leaves the old file or the new one under `path`, never a part of
    one; on an error the old file stays. What a symbolic link points to is replaced, not the link.
    """
    final = Path(os.path.realpath(path))
    draft = final.with_name(f".{final.stem}.{os.getpid()}.part{final.suffix}")
    try:
        yield draft
        os.replace(draft, final)
    finally:
        draft.unlink(missing_ok=True)


class _Writer(io.BufferedWriter):
    """A file to write to that remembers why it could not be written."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


@contextmanager
def torch_file(path: str | Path) -> Iterator[BinaryIO]:
    """A new file for `torch.save` and the like, tensor after tensor, without a copy of the whole.

    Raises:
        OSError: it cannot be written, by a full disk for one. Torch's own writers say where in the
            file they are then, and not why.
    """
    with _Writer(io.FileIO(path, "w")) as file:
        try:
            yield file
        except RuntimeError:
            if file.error is None:
                raise
            raise file.error from None
