"""Metrics in Weights & Biases."""

import netrc
import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse
from weakref import WeakSet

from xlstm_rl.config.errors import one_line
from xlstm_rl.files import replacing
from xlstm_rl.runs.loggers.config import WandbConfig

ID_FILE = Path("wandb") / "xlstm_rl-run-id.txt"

_our_wandb_runs: "WeakSet[Any]" = WeakSet()
"""The W&B runs that were started here, and so are closed here."""


class WandbSink:
    """A W&B run, against `step`: the one that the user has open, or else one of ours.

    A user's run (`wandb.init` before training) gets the metrics and the configuration, whose keys
    are prefixed where the user's own say something else, and stays open. Should the user close it,
    what follows goes into the one that is open then. The files of a run of ours lie under `wandb/`
    of the run folder. It never asks for anything: without a key, and where W&B cannot be reached,
    it is recorded offline, which one printed line says.
    """

    def __init__(self, config: WandbConfig, folder: Path, run_config: Mapping[str, Any]) -> None:
        self._config, self._folder, self._run_config = config, folder, run_config
        self._logged = -1
        self._choose_run()

    def resume(self, step: int, logged: int) -> None:
        """Leave out the steps that W&B has already: nothing can be taken back there.

        A run that goes on exactly would log the same numbers again.
        """
        if self._is_ours:
            self._logged = logged

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log one point of every metric."""
        if step <= self._logged:
            return
        if self._is_current and wandb_run() is not self._run:  # somebody has closed it
            self._choose_run()
        if not self._is_ours:
            # One by one: the user's own metrics keep the axis that they have.
            for key in metrics.keys() - self._on_our_axis:
                self._run.define_metric(key, step_metric="step")
            self._on_our_axis |= metrics.keys()
        self._run.log({"step": step, **metrics})

    def close(self) -> None:
        """Finish a run of ours; W&B's own process uploads or writes what is left."""
        if self._is_ours:
            self._run.finish()

    def _choose_run(self) -> None:
        current = wandb_run()
        self._is_ours = current is None or current in _our_wandb_runs
        self._on_our_axis: set[str] = set()
        if self._is_ours:
            # Another agent may have one open: W&B would hand that out instead of a new one.
            self._run = self._start(None if current is None else "create_new")
            self._run.define_metric("*", step_metric="step")
            _our_wandb_runs.add(self._run)
        else:
            self._run = current
            theirs = dict(self._run.config)
            values = {
                key if theirs.get(key, value) == value else f"xlstm_rl.{key}": value
                for key, value in self._run_config.items()
            }
            self._run.config.update(values, allow_val_change=True)
        self._is_current = wandb_run() is self._run

    def _start(self, reinit: Literal["create_new"] | None) -> Any:
        import wandb

        config, folder = self._config, self._folder
        run_id = self._run_id()

        def start(mode: Literal["offline"] | None) -> Any:
            return wandb.init(
                project=config.project,
                id=run_id,
                resume="allow",
                name=config.name or folder.name,
                group=config.group,
                tags=config.tags or None,
                config=dict(self._run_config),
                # absolute: the process that writes was started where an earlier run was
                dir=str(folder.absolute()),
                mode=mode,
                reinit=reinit,
                settings=wandb.Settings(console="off", silent=True, init_timeout=30),
            )

        sync = f"recording offline; `wandb sync {folder}/wandb/offline-run-*` uploads it"
        asked = os.environ.get("WANDB_MODE") or wandb.setup().settings.mode
        if asked not in ("offline", "dryrun", "disabled") and not has_wandb_key():
            print(f"wandb: no API key, {sync}", file=sys.stderr)
            return start("offline")
        try:
            return start(None)
        except Exception as error:  # a broken network or server must not cost the run
            print(f"wandb: {one_line(error)}, {sync}", file=sys.stderr)
            return start("offline")

    def _run_id(self) -> str:
        """Return W&B's id of the run, which the run folder keeps for when it goes on."""
        path = self._folder / ID_FILE
        found = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", found):
            return found
        made = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            draft.write_text(f"{made}\n", encoding="utf-8")
        return made


def wandb_run() -> Any:
    """Return the W&B run that is open in this process, or None."""
    import wandb

    return wandb.run


def has_wandb_key() -> bool:
    """Whether W&B can log in without asking: by environment, netrc or its settings."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb

    settings = wandb.setup().settings
    host = urlparse(settings.base_url).hostname or ""
    try:
        path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
        return bool(netrc.netrc(path).authenticators(host) or settings.api_key)
    except (OSError, netrc.NetrcParseError):
        return bool(settings.api_key)
