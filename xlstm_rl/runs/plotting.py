"""Learning curves: the metrics of run folders, read and drawn."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xlstm_rl.config import ConfigError, load_yaml
from xlstm_rl.files import replacing
from xlstm_rl.options.arguments import user_path
from xlstm_rl.runs.folder import CONFIG_FILE, METRICS_FILE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMATS = (".png", ".svg", ".pdf")
# What may differ between two runs of one experiment.
_NOT_THE_EXPERIMENT = ("seed", "run_dir", "device", "threads", "logger.", "checkpoint.")


@dataclass(frozen=True)
class Curve:
    """One metric of one run against the environment steps, both `[N]`."""

    run: Path
    steps: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    experiment: Mapping[str, Any]
    """What the run was, as dotted keys; the same for its other seeds."""


def read_curve(run: str | Path, metric: str = "episode/return") -> Curve:
    """Read one metric of a run, leaving out the updates that do not have it.

    Raises:
        ConfigError: The folder has no metrics, or none of this one.
    """
    folder = user_path(run)
    path = folder / METRICS_FILE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise ConfigError(
            f"{path}: cannot be read; expected a run folder of `xlstm-rl train` "
            "(with --logger.kind none there are no metrics)"
        ) from None
    try:
        points = [(float(row["step"]), float(row[metric])) for row in rows if row[metric]]
    except KeyError as error:
        raise ConfigError(f"{path}: has no column {error.args[0]}") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: expected numbers: {error}") from None
    points = [point for point in points if math.isfinite(point[1])]
    if not points:
        raise ConfigError(f"{path}: has no {metric} yet; the run finished no episode")
    steps, values = np.array(points).T
    return Curve(folder, steps, values, _experiment(folder))


def _experiment(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        return {"run": folder.name}
    flat = _flatten(load_yaml(path))
    return {key: value for key, value in flat.items() if not key.startswith(_NOT_THE_EXPERIMENT)}


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def group_by_label(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Put the seeds of one experiment together, labelled by what sets it apart from the others."""
    keys = dict.fromkeys(key for curve in curves for key in curve.experiment)
    missing = object()
    differing = [
        key
        for key in keys
        if len({repr(curve.experiment.get(key, missing)) for curve in curves}) > 1
    ]
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        parts = [
            str(curve.experiment[key])
            if key in ("memory.kind", "env.id", "run")
            else f"{key}={curve.experiment[key]}"
            for key in differing
            if key in curve.experiment
        ]
        label = ", ".join(parts) or str(curve.experiment.get("memory.kind", curve.run.name))
        groups.setdefault(label, []).append(curve)
    return groups


def mean_curve(curves: Sequence[Curve]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The mean of several runs where all of them have values: steps and values, both `[N]`.

    Runs are joined by straight lines between their points. Where they have no steps in common,
    both are empty.
    """
    start = max(curve.steps[0] for curve in curves)
    end = min(curve.steps[-1] for curve in curves)
    steps = np.unique(np.concatenate([curve.steps for curve in curves]))
    steps = steps[(steps >= start) & (steps <= end)]
    values = [np.interp(steps, curve.steps, curve.values) for curve in curves]
    return steps, np.mean(values, axis=0)


def plot_runs(runs: Sequence[str | Path], out: str | Path, metric: str = "episode/return") -> Path:
    """Draw learning curves: every run thin, the mean of each experiment's seeds thick.

    Raises:
        ConfigError: A run has no metrics, or the figure's format is unknown.
    """
    path = user_path(out)
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"--out {out}: expected a name that ends in {', '.join(_FORMATS)}")
    curves = [read_curve(run, metric) for run in runs]

    # A Figure of its own needs no display and leaves pyplot's state alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.3), layout="constrained")
    axes = figure.add_subplot()
    for number, (label, group) in enumerate(sorted(group_by_label(curves).items())):
        _draw_group(axes, group, label, color=f"C{number % 10}")
    tasks = {str(curve.experiment.get("env.id", "")) for curve in curves}
    axes.set_title(tasks.pop() if len(tasks) == 1 else "")
    axes.set_xlabel("environment steps")
    axes.set_ylabel(metric.replace("/", " "))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            figure.savefig(draft, dpi=150)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from None
    return path


def _draw_group(axes: "Axes", curves: Sequence[Curve], label: str, color: str) -> None:
    if len(curves) == 1:
        axes.plot(curves[0].steps, curves[0].values, color=color, linewidth=1.6, label=label)
        return
    for curve in curves:
        axes.plot(curve.steps, curve.values, color=color, linewidth=0.8, alpha=0.4)
    name = f"{label} (mean of {len(curves)})"
    axes.plot(*mean_curve(curves), color=color, linewidth=2.0, label=name)
