"""TensorBoard's event file, written directly: records of TensorFlow's `TFRecord` format.

TensorBoard's own writer takes as long to import as a small policy takes for ten updates, and has
a thread that a full disk ends without a word.
"""

import os
import socket
import struct
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from xlstm_rl.closing import closed_on_error

_numbers = count()

_CASTAGNOLI = 0x82F63B78
_TABLE = list(range(256))
for _ in range(8):
    _TABLE = [one >> 1 ^ (_CASTAGNOLI if one & 1 else 0) for one in _TABLE]


class EventFile:
    """A new event file in a folder, which is made.

    Args:
        folder: of the run's event files.
        purge_step: what stands in earlier files from this step on, TensorBoard leaves out.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import (  # type: ignore[import-untyped]
            Event,
            SessionLog,
        )

        self._event = Event
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._path = folder / f"events.out.tfevents.{name}"
        self._file = self._path.open("ab")
        with closed_on_error(self.close):
            self._add(file_version="brain.Event:2")
            if purge_step is not None:
                self._add(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, summary: Any) -> None:
        """Append a summary; a killed run keeps it.

        Raises:
            OSError: it cannot be written; nothing of it is in the file.
        """
        self._add(step=step, summary=summary)

    def _add(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(event))
        record = length + _checksum(length) + event + _checksum(event)
        before = self._path.stat().st_size
        try:
            self._file.write(record)
            self._file.flush()
        except OSError:
            self.close()
            os.truncate(self._path, before)  # nothing behind a part of a record could be read
            self._file = self._path.open("ab")
            raise

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # what could not be written cannot be flushed either
            self._file.close()


def _checksum(data: bytes) -> bytes:
    """Return the masked CRC-32C of a part of a record."""
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF)
