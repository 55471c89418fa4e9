"""Metrics in Weights & Biases."""

import os
import re
import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

from xlstm_rl.config.errors import one_line
from xlstm_rl.files import replacing
from xlstm_rl.runs.loggers.config import WandbConfig
from xlstm_rl.runs.loggers.wandb_account import has_wandb_key, wandb_run
from xlstm_rl.runs.loggers.wandb_artifacts import CheckpointArtifact
from xlstm_rl.runs.loggers.wandb_file import cut_after
from xlstm_rl.runs.loggers.wandb_note import note, read_note
from xlstm_rl.runs.loggers.wandb_versions import (
    await_free_folder,
    finish_in_time,
    offline_resume,
)
from xlstm_rl.terminal import tell

_our_wandb_runs: "WeakSet[Any]" = WeakSet()
"""The W&B runs that were started here, and so are closed here."""

ID_FILE = Path("wandb") / "xlstm_rl-run-id.txt"
_PROJECT = "xlstm_rl"


class WandbSink:
    """A W&B run, against `step`: the one that the user has open, or else one of ours.

    A user's run (`wandb.init` before training) gets the metrics and the configuration, whose keys
    are prefixed where the user's own say something else, and stays open. Should the user close it,
    what follows goes into the one that is open then. The files of a run of ours lie under `wandb/`
    of the run folder, unless `WANDB_DIR` says otherwise; opened again on that folder, it is the
    same W&B run. It never asks for anything: without a key, and where W&B cannot be reached, it is
    recorded offline. One printed line says how to upload what is offline. Should W&B fail later,
    one line says so, and the run goes on without it.

    Args:
        config: the options.
        folder: the run folder.
        run_config: the resolved configuration of the run.
        is_training: whether points come in the order of their steps, as a training logs them; an
            evaluation adds points to what is there.
    """

    is_slow = True

    def __init__(
        self,
        config: WandbConfig,
        folder: Path,
        run_config: Mapping[str, Any],
        is_training: bool = True,
    ) -> None:
        self._config, self._folder, self._run_config = config, folder, run_config
        self._is_training = is_training
        self._has_failed = False
        self._logged_already = float("-inf")
        self._last_row: int | None = None
        self._artifact = CheckpointArtifact(folder)
        self._run: Any = None
        self._is_ours = self._is_current = False
        try:
            self._choose_run()
        except Exception as error:  # W&B's own process may have ended, say
            self._give_up(error)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log one point of every metric."""
        self._artifact.see(metrics)
        self._last_row = step
        self._log(step, metrics)

    def write_histograms(self, step: int, values: Mapping[str, Any]) -> None:
        """Log a histogram per name, in one point with the metrics that follow."""
        import wandb

        shown = {key: wandb.Histogram(array) for key, array in values.items()}
        self._log(step, shown, commit=False)

    def write_videos(self, step: int, files: Mapping[str, Path]) -> None:
        """Log a video per name."""
        import wandb

        self._log(step, {key: wandb.Video(str(file), format="mp4") for key, file in files.items()})

    def keep_checkpoint(self, step: int, folder: Path, aliases: Sequence[str]) -> None:
        """Add a version to the artifact of the run's checkpoints."""
        if self._has_failed:
            return
        try:
            if self._is_ours and self._last_row is not None:  # to rewind to
                points = read_note(self._folder).get("points", {})
                note(self._folder, points={**points, str(self._last_row): self._run.step - 1})
            if self._config.checkpoints:
                self._artifact.add(self._run, step, folder, aliases)
        except Exception as error:  # as for points
            self._give_up(error)

    def close(self) -> None:
        """Finish a run of ours; W&B's own process uploads or writes what is left."""
        if self._is_ours and self._run is not None:
            _our_wandb_runs.discard(self._run)
            try:
                self._run.finish()
            except TimeoutError:
                folder = shlex.quote(str(Path(self._run.settings.sync_dir)))
                _say(f"the server does not take what is left; `wandb sync {folder}` uploads it")
            except Exception as error:  # likewise
                if not self._has_failed:
                    self._give_up(error)

    @staticmethod
    def forget_after(folder: Path, step: int) -> None:
        """Cut what was recorded offline, and have the next start rewind what was uploaded."""
        run_id = _kept_id(folder)
        if run_id is None:
            return
        for root in {folder, Path(os.environ.get("WANDB_DIR") or folder)}:
            # W&B numbers the folders of one second
            for path in root.glob(f"wandb/offline-run-*-{run_id}*/*.wandb"):
                cut_after(path, step)
        note(folder, forget_after=step)

    def _log(self, step: int, values: Mapping[str, Any], commit: bool = True) -> None:
        if self._has_failed or step <= self._logged_already or not values:
            return
        try:
            if self._is_current and wandb_run() is not self._run:  # somebody has closed it
                self._choose_run()
            if not self._is_ours:
                # One by one: the user's own metrics keep the axis that they have.
                for key in values.keys() - self._on_our_axis:
                    self._run.define_metric(key, step_metric="step")
                self._on_our_axis |= values.keys()
            self._run.log({"step": step, **values}, **({} if commit else {"commit": False}))
        except Exception as error:  # a logger that broke must not cost the run
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._has_failed = True
        _say(f"{one_line(error)}; the run goes on without W&B, metrics.csv has everything")

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

        config, folder, known = self._config, self._folder, read_note(self._folder)
        settings = wandb.setup().settings
        variables = os.environ

        # absolute: the process that writes was started where an earlier run was
        root = variables.get("WANDB_DIR") or str(folder.absolute())

        def start(mode: Literal["offline", "disabled"] | None, **same: Any) -> Any:
            # What is None is left to W&B's variables, to its settings and to its defaults.
            return wandb.init(
                project=config.project
                or known.get("project")
                or variables.get("WANDB_PROJECT")
                or settings.project
                or _PROJECT,
                entity=config.entity or known.get("entity"),
                name=config.name or variables.get("WANDB_NAME") or folder.name,
                group=config.group,
                tags=config.tags or None,
                notes=config.notes,
                config=dict(self._run_config),
                dir=root,
                mode=mode,
                reinit=reinit,
                settings=wandb.Settings(
                    console="off", silent=True, init_timeout=30, **finish_in_time(settings)
                ),
                **same,
            )

        kept = _kept_id(folder)
        run_id = kept or variables.get("WANDB_RUN_ID") or secrets.token_hex(4)

        def start_offline(run_id: str = run_id) -> Any:
            await_free_folder(Path(root), run_id)
            return start("offline", id=run_id, **offline_resume())

        mode = variables.get("WANDB_MODE") or settings.mode
        if mode in ("offline", "dryrun", "disabled"):
            # said again: W&B may have read its variables before this one was set
            run = start("disabled", id=run_id) if mode == "disabled" else start_offline()
            why = ""
        elif not has_wandb_key():
            run, why = start_offline(), "no API key, "
        else:
            try:
                run, why = self._start_online(start, known, run_id, kept is not None), ""
            except Exception as error:  # a broken network or server must not cost the run
                run, why = start_offline(_released(run_id)), f"{one_line(error)}, "
        if not run.disabled:
            _keep_id(folder, run.id)
            note(folder, project=run.project, entity=run.entity, forget_after=None)
        if run.offline:
            where = shlex.quote(str(Path(run.settings.sync_dir).parent))
            _say(f"{why}recording offline; `wandb sync {where}/offline-run-*-{run.id}*` uploads it")
        return run

    def _start_online(
        self, start: Callable[..., Any], known: Mapping[str, Any], run_id: str, is_kept: bool
    ) -> Any:
        """Start a run, or go on in the one that is known, without what is to be forgotten."""
        point = known.get("points", {}).get(str(known.get("forget_after")))
        if is_kept and point is not None:
            with suppress(Exception):  # not every server can rewind
                return start(None, resume_from=f"{run_id}?_step={point}")
        run = start(None, id=run_id, resume="allow")
        if is_kept and self._is_training:
            # What is there already is not logged again.
            self._logged_already = float(dict(run.summary).get("step") or "-inf")
        return run


def _kept_id(folder: Path) -> str | None:
    """The id of the W&B run that the run folder keeps; None where it keeps none that can be one."""
    path = folder / ID_FILE
    found = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    return found if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", found) else None


def _released(run_id: str) -> str:
    """Return the id for a run that could not be started online: W&B's process holds it until then.

    Where other runs are open, which the end of that process would close, another id.
    """
    if wandb_run() is not None or _our_wandb_runs:
        return secrets.token_hex(4)
    import wandb

    wandb.teardown()
    return run_id


def _keep_id(folder: Path, run_id: str) -> None:
    path = folder / ID_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(f"{run_id}\n", encoding="utf-8")


def _say(line: str) -> None:
    tell(f"wandb: {line}")
