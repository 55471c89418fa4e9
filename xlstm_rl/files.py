"""Files that are whole at every moment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
