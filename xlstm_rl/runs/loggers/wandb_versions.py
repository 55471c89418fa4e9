"""Where W&B before today's version does something else."""

import time
from pathlib import Path
from typing import Any

from xlstm_rl.versions import installed_version

_FINISH_SECONDS = 300.0


def finish_in_time(settings: Any) -> dict[str, Any]:
    """Return settings with which the end of a run does not wait for a server for ever.

    Args:
        settings: W&B's own; `WANDB_FINISH_TIMEOUT` stands in them.
    """
    if not hasattr(settings, "finish_timeout"):  # earlier versions wait
        return {}
    return {
        "finish_timeout": settings.finish_timeout or _FINISH_SECONDS,
        "finish_timeout_raises": True,
    }


def offline_resume() -> dict[str, str]:
    """Return the options with which an offline run goes on.

    Before 0.31 W&B ignores `resume` there and prints a line about it; the parts of a run are told
    by their common id.
    """
    return {} if installed_version("wandb") < (0, 31) else {"resume": "allow"}


def await_free_folder(root: Path, run_id: str) -> None:
    """Wait until an offline run has a folder of its own, for a second at most.

    A folder is named by its second and its id. Where W&B does not number those of one second, the
    later run would overwrite the earlier one.
    """
    import wandb

    if "x_sync_dir_suffix" in wandb.Settings.model_fields:
        return
    while (root / "wandb" / f"offline-run-{time.strftime('%Y%m%d_%H%M%S')}-{run_id}").exists():
        time.sleep(0.02)
