"""The folder of an inspection: whole, or not there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xlstm_rl.config import ConfigError
from xlstm_rl.options.arguments import user_path

OWN = ("index.html", "steps.csv", "saliency.csv", "erasing.csv", "erasing.png", "episode_*.png")
"""Names of the files that an inspection writes."""


@contextmanager
def whole_folder(out: str | Path, overwrite: bool) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when it is complete; on an error nothing is left.

    Args:
        out: where the files go: nothing, or an empty folder.
        overwrite: replace the files of an earlier inspection; others in the folder stay.

    Raises:
        ConfigError: something is there, or nothing can be written.
    """
    final = user_path(out).absolute()
    if final.exists() and not final.is_dir():
        raise ConfigError(f"--out {out}: is a file, expected a folder that is new or empty")
    if not overwrite and final.is_dir() and any(final.iterdir()):
        raise ConfigError(f"--out {out}: is not empty; name another folder, or pass --overwrite")
    missing = [one for one in (final, *final.parents) if not one.exists()]
    draft = final / f".inspection.{os.getpid()}.part"
    try:
        draft.mkdir(parents=True)
        yield draft
        for pattern in OWN:
            for old in final.glob(pattern):
                old.unlink()
        for new in draft.iterdir():
            os.replace(new, final / new.name)
    except OSError as error:
        if not str(error.filename).startswith(str(final)):
            raise  # not of a file of ours
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        for one in missing:
            if one.is_dir() and not any(one.iterdir()):
                one.rmdir()
