"""From the runs of a comparison to the rows of its table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from xlstm_rl.bootstrap import Numbers, bootstrap_interval
from xlstm_rl.comparing.job import DONE, Job, Result
from xlstm_rl.comparing.statistics import (
    Interval,
    interquartile_mean,
    interval_of,
    mean_improvement,
    median_reached,
)
from xlstm_rl.config import ConfigError
from xlstm_rl.runs.curves import Curve, read_curve


@dataclass(frozen=True)
class Outcome:
    """A job and what became of it, if anything has yet."""

    job: Job
    result: Result | None
    threshold: float | None = None

    @property
    def is_done(self) -> bool:
        """Whether it counts."""
        return self.result is not None and self.result.status == DONE

    @property
    def mean(self) -> float:
        """Mean return of the evaluation; NaN: there is none."""
        return float(np.mean(self.result.returns)) if self.result and self.is_done else math.nan

    @cached_property
    def curve(self) -> Curve | None:
        """Returns while it trained; None: it finished no episode."""
        return _read(self.job.folder, "episode/return")

    @cached_property
    def seconds(self) -> float:
        """How long it trained, parts before an interruption included; NaN: nobody knows."""
        speed = _read(self.job.folder, "time/sps")
        if speed is None:
            return math.nan
        return float(np.sum(np.diff(speed.steps, prepend=0.0) / speed.values))

    @property
    def reached(self) -> float | None:
        """Steps at which its return first was at the threshold; None: never, or there is none."""
        if self.curve is None or self.threshold is None:
            return None
        above = np.flatnonzero(self.curve.values >= self.threshold)
        return float(self.curve.steps[above[0]]) if len(above) else None


def _read(folder: Path, metric: str) -> Curve | None:
    try:
        return read_curve(folder, metric)
    except ConfigError:
        return None


@dataclass(frozen=True)
class Row:
    """One memory on one case."""

    case: str
    memory: str
    width: int
    weights: int
    runs: int
    """How many were to be."""

    done: int
    """How many are, and so in the numbers."""

    means: list[float] = field(default_factory=list)
    """A mean return for each run that is done."""

    mean: float = math.nan
    interval: Interval | None = None
    iqm: float = math.nan
    iqm_interval: Interval | None = None
    better: float = math.nan
    """Probability that a run of it beats a run of the first memory."""

    better_interval: Interval | None = None
    success: float | None = None
    threshold: float | None = None
    reached: int = 0
    """How many runs came to the threshold."""

    steps_to_threshold: float | None = None
    """The median over the runs, those that never did the latest; None: half or more did
    not."""

    seconds: float = math.nan
    speed: float = math.nan
    """Steps per second while it trained."""


def make_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return a row for each memory on each case, in the order in which they come first."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one.job.case, one.job.memory), []).append(one)
    first: dict[str, list[float]] = {}
    rows = []
    for (case, _), group in groups.items():
        baseline = first.get(case)
        row = _row(group, baseline)
        first.setdefault(case, row.means)
        rows.append(row)
    return rows


def _row(group: Sequence[Outcome], baseline: list[float] | None) -> Row:
    done = [one for one in group if one.is_done]
    job, threshold = group[0].job, group[0].threshold
    empty = Row(job.case, job.memory, job.width, job.weights, len(group), len(done))
    if not done:
        return empty
    means = np.array([one.mean for one in done])
    successes = [one.result.success_rate for one in done if one.result is not None]
    told = [one for one in successes if one is not None]
    reached = [one.reached for one in done]
    seconds = float(np.mean([one.seconds for one in done]))
    steps = float(np.mean([one.result.steps for one in done if one.result is not None]))
    better: tuple[float, Interval | None] = (math.nan, None)
    if baseline:
        better = mean_improvement([(means, np.array(baseline))])
    return Row(
        *(job.case, job.memory, job.width, job.weights, len(group), len(done)),
        means=means.tolist(),
        mean=float(means.mean()),
        interval=bootstrap_interval(means),
        iqm=float(interquartile_mean(means)),
        iqm_interval=interval_of(interquartile_mean, means),
        better=better[0],
        better_interval=better[1],
        success=float(np.mean(told)) if told else None,
        threshold=threshold,
        reached=sum(one is not None for one in reached),
        steps_to_threshold=median_reached(reached),
        seconds=seconds,
        speed=steps / seconds if seconds else math.nan,
    )


@dataclass(frozen=True)
class Overall:
    """One memory against the first one over all cases on which both have runs."""

    memory: str
    cases: int
    better: float
    """Probability of improvement, the mean over the cases."""

    interval: Interval | None


def make_overall(rows: Sequence[Row]) -> list[Overall]:
    """Return a line for each memory but the first; of one case there is nothing to sum up."""
    by_memory: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_memory.setdefault(row.memory, {})[row.case] = row
    (_, baseline), *others = by_memory.items()
    found = []
    for memory, own in others:
        pairs = _pairs(own, baseline)
        if len(pairs) > 1:
            found.append(Overall(memory, len(pairs), *mean_improvement(pairs)))
    return found


def _pairs(own: Mapping[str, Row], other: Mapping[str, Row]) -> list[tuple[Numbers, Numbers]]:
    return [
        (np.array(own[case].means), np.array(other[case].means))
        for case in own
        if case in other and own[case].means and other[case].means
    ]
