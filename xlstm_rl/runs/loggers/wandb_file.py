"""W&B's own file of a run, read and cut: a header, then LevelDB's log format of protobuf records.

Only what is recorded offline is read back here; `wandb sync` uploads the file as it then is.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER, _BLOCK, _FRAGMENT = 7, 32768, 7
_WHOLE, _LAST = 1, 4  # kinds of fragments that end a record


def records(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield every complete record of a file, with the offset in the file behind it."""
    from wandb.proto import wandb_internal_pb2

    protocol: Any = wandb_internal_pb2  # generated, and not typed everywhere
    data, position, record = path.read_bytes(), _HEADER, b""
    while position + _FRAGMENT <= len(data):
        room = _BLOCK - position % _BLOCK
        if room < _FRAGMENT:  # no fragment fits: padding
            position += room
            continue
        size, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        end = position + _FRAGMENT + size
        if end > len(data):  # killed while it was written
            return
        record += data[position + _FRAGMENT : end]
        position = end
        if kind in (_WHOLE, _LAST):
            yield position, protocol.Record.FromString(record)
            record = b""


def cut_after(path: Path, step: int) -> None:
    """Cut a file before the first point whose `step` is later; the points before stay."""
    end = _HEADER
    for position, record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "history" and _step_of(record.history) > step:
            with path.open("r+b") as file:
                file.truncate(end)
            return
        if kind != "summary":  # what follows from the point behind it
            end = position


def _step_of(history: Any) -> float:
    for item in history.item:
        if (item.key or "/".join(item.nested_key)) == "step":
            return float(json.loads(item.value_json))
    return float("-inf")
