"""What a resumed run needs to know of its W&B run beside the id, in `wandb.json`."""

import json
from pathlib import Path
from typing import Any

from xlstm_rl.files import replacing

NOTE = "wandb.json"


def read_note(folder: Path) -> dict[str, Any]:
    """Return what is known; nothing where there was no W&B run, or the file is damaged.

    `project` and `entity` of the run; `points`, W&B's own count of points at the last row
    before each checkpoint; `best`, the score of the best one; `forget_after`, a step to go back to.
    """
    try:
        known = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def note(folder: Path, **values: Any) -> None:
    """Write values down beside those that are known; None takes one out."""
    known = {key: one for key, one in (read_note(folder) | values).items() if one is not None}
    with replacing(folder / NOTE) as draft:
        draft.write_text(json.dumps(known) + "\n", encoding="utf-8")
