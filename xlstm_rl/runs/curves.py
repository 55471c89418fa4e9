"""Metrics of run folders, read; which of them are one experiment, and what sets those apart."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xlstm_rl.bootstrap import bootstrap_bands
from xlstm_rl.config import ConfigError, load_yaml
from xlstm_rl.options.arguments import did_you_mean, user_path
from xlstm_rl.runs.folder import CONFIG_FILE, METRICS_FILE

Numbers = npt.NDArray[np.float64]

# What may differ between two runs of one experiment.
_NOT_THE_EXPERIMENT = ("seed", "run_dir", "device", "threads", "logger.", "checkpoint.")
_PLAIN = ("memory.kind", "env.id", "agent.algo", "run")
"""Values that say by themselves what they are."""

LONGEST_LABEL = 44
"""Characters of an experiment's name in a figure."""

_MOST_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """One metric of one run against the environment steps, both `[N]`."""

    run: Path
    steps: Numbers
    values: Numbers
    experiment: Mapping[str, Any]
    """What the run was, as dotted keys; the same for its other seeds."""


@dataclass(frozen=True)
class Band:
    """The mean of several runs and the interval around it, `[N]` each."""

    steps: Numbers
    mean: Numbers
    low: Numbers
    high: Numbers


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """Return the run folders among the paths and in those that are parents of runs, each once.

    Raises:
        ConfigError: a folder is neither.
    """
    found: list[Path] = []
    for path in map(user_path, paths):
        if (path / METRICS_FILE).is_file() or not path.is_dir():
            found.append(path)  # what is no folder is refused when it is read
            continue
        inside = sorted(file.parent for file in path.rglob(METRICS_FILE))
        if not inside and (path / CONFIG_FILE).is_file():
            inside = [path]
        if not inside:
            raise ConfigError(
                f"{path}: cannot be read: no {METRICS_FILE} in it or below; expected run folders "
                "of `xlstm-rl train`, or a folder of them (with --logger.kind none there are no "
                "metrics)"
            )
        found += inside
    unique = {path.resolve(): path for path in reversed(found)}
    return [path for path in found if unique.pop(path.resolve(), None) is not None]


class NoValueYetError(ConfigError):
    """A run that has none of a metric so far, and may have later."""


def read_curves(paths: Sequence[str | Path], metric: str) -> tuple[list[Curve], list[Path]]:
    """Read one metric of all runs that the paths stand for.

    Returns:
        The curves, and the runs inside of a folder that have no value yet: a folder of runs is
        looked at while the last of them begin.

    Raises:
        ConfigError: as `find_runs` and `read_curve`; so is a run that was itself named and has no
            value, and where none has one.
    """
    named = {user_path(path).resolve() for path in paths}
    curves, without = [], []
    for run in find_runs(paths):
        try:
            curves.append(read_curve(run, metric))
        except NoValueYetError:
            if run.resolve() in named:
                raise
            without.append(run)
    if not curves:
        where = ", ".join(map(str, paths))
        raise NoValueYetError(
            f"{where}: none of the {len(without)} runs in it or below has {metric} yet; wait until "
            "one has, or name another --metric"
        )
    return curves, without


def read_curve(run: str | Path, metric: str = "episode/return") -> Curve:
    """Read one metric of a run, leaving out the updates that do not have it.

    Raises:
        ConfigError: The folder has no metrics, or none of this one; `NoValueYetError`: not yet.
    """
    folder = user_path(run)
    path = folder / METRICS_FILE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error):
        raise ConfigError(
            f"{path}: cannot be read; expected a run folder of `xlstm-rl train` "
            "(with --logger.kind none there are no metrics)"
        ) from None
    for name in ("step", metric):
        if rows and name not in columns:
            raise ConfigError(f"{path}: has no column {name}{did_you_mean(name, columns)}")
    try:
        # the last row of a run that was killed may be incomplete
        points = [(float(row["step"]), float(row[metric])) for row in rows if row[metric]]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: expected numbers: {error}") from None
    points = [point for point in points if math.isfinite(point[1])]
    if not points:
        why = "; the run finished no episode" if metric.startswith("episode/") else ""
        raise NoValueYetError(f"{path}: has no {metric} yet{why}")
    steps, values = np.array(points).T
    return Curve(folder, steps, values, _experiment(folder))


def _experiment(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        return {"run": folder.name}
    flat = flatten(load_yaml(path))
    return {key: value for key, value in flat.items() if not key.startswith(_NOT_THE_EXPERIMENT)}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration's values by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def group_by_label(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Put the seeds of one experiment together, labelled by what sets it apart from the others.

    Options that only other kinds of memory, algorithm or the like have follow from the kind, and
    are not named. Where names would be long, as few options are named as tell the experiments
    apart.
    """
    keys = dict.fromkeys(key for curve in curves for key in curve.experiment)
    everywhere = [key for key in keys if all(key in curve.experiment for curve in curves)]
    differing = [key for key in everywhere if _differ(key, curves)]
    groups: dict[tuple[str, ...], list[Curve]] = {}
    for curve in curves:
        whole = tuple(f"{key}={curve.experiment.get(key)!r}" for key in keys)
        groups.setdefault(whole, []).append(curve)
    labels = _labels(groups, differing)
    if len(set(labels)) < len(labels):  # what only some kinds have sets experiments apart too
        differing += [key for key in keys if key not in everywhere and _differ(key, curves)]
        labels = _labels(groups, differing)
    if max(map(len, labels)) > LONGEST_LABEL:
        labels = _labels(groups, _fewest(groups, differing))
    found: dict[str, list[Curve]] = {}
    for label, group in zip(labels, groups.values(), strict=True):
        found.setdefault(label, []).extend(group)
    return found


def _differ(key: str, curves: Sequence[Curve]) -> bool:
    return len({repr(curve.experiment[key]) for curve in curves if key in curve.experiment}) > 1


def _fewest(groups: Mapping[Any, Sequence[Curve]], differing: Sequence[str]) -> list[str]:
    """Return options that tell the groups apart as well as all of them do, kinds and ids first."""
    wanted = len(set(_labels(groups, differing)))
    chosen = [key for key in _PLAIN if key in differing]
    others = sorted((key for key in differing if key not in chosen), key="total_steps".__eq__)

    def told(keys: Sequence[str]) -> int:
        return len(set(_labels(groups, keys)))

    while told(chosen) < wanted:
        best = max(others, key=lambda key: told([*chosen, key]))  # of equals the first
        others.remove(best)
        chosen.append(best)
    return chosen


def _labels(groups: Mapping[Any, Sequence[Curve]], differing: Sequence[str]) -> list[str]:
    labels = []
    for group in groups.values():
        own = group[0].experiment
        parts = [
            str(own[key]).removeprefix("xlstm_rl/")
            if key in _PLAIN
            else f"{_short(key, differing)}={own[key]}"
            for key in differing
            if key in own
        ]
        labels.append(", ".join(parts) or str(own.get("memory.kind", group[0].run.name)))
    return labels


def _part(key: str, value: Any, differing: Sequence[str]) -> str:
    if key in _PLAIN:
        return str(value).removeprefix("xlstm_rl/")
    return f"{_short(key, differing)}={value}"


def _short(key: str, differing: Sequence[str]) -> str:
    """An option without its section, where that is clear."""
    tail = key.rpartition(".")[2]
    return tail if [one.rpartition(".")[2] for one in differing].count(tail) == 1 else key


def smoothed(values: Numbers, window: int) -> Numbers:
    """Return the mean over the `window` values around each; at the ends over those that are there.

    Args:
        values: `[N]`.
        window: 1 or less changes nothing.
    """
    if window <= 1:
        return values
    before = window // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low = np.maximum(index - before, 0)
    high = np.minimum(index + window - before, len(values))
    means: Numbers = (sums[high] - sums[low]) / (high - low)
    return means


def mean_curve(curves: Sequence[Curve]) -> tuple[Numbers, Numbers]:
    """The mean of several runs where all of them have values: steps and values, both `[N]`.

    Runs are joined by straight lines between their points. Where they have no steps in common,
    both are empty.
    """
    steps, values = _common(curves)
    return steps, np.mean(values, axis=0)


def band(curves: Sequence[Curve]) -> Band:
    """Return the mean of runs and its 95 % bootstrap interval over the runs, where all have values.

    One run, or runs without common steps, have a band of no width.
    """
    steps, values = _common(curves)
    if len(steps) > _MOST_POINTS:
        thin = np.linspace(0, len(steps) - 1, _MOST_POINTS).round().astype(int)
        steps, values = steps[thin], values[:, thin]
    mean = np.mean(values, axis=0)
    ends = bootstrap_bands(values, resamples=2000) if len(steps) else None
    low, high = (mean, mean) if ends is None else ends
    return Band(steps, mean, low, high)


def _common(curves: Sequence[Curve]) -> tuple[Numbers, Numbers]:
    """Steps `[N]` that every run spans, and the values there, `[runs, N]`."""
    start = max(curve.steps[0] for curve in curves)
    end = min(curve.steps[-1] for curve in curves)
    steps = np.unique(np.concatenate([curve.steps for curve in curves]))
    steps = steps[(steps >= start) & (steps <= end)]
    return steps, np.array([np.interp(steps, curve.steps, curve.values) for curve in curves])
