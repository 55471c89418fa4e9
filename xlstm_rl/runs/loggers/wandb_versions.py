"""Where W&B before today's version does something else with a run that is recorded offline."""

import time
from pathlib import Path

from xlstm_rl.versions import installed_version


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
