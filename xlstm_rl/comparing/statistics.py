"""What several runs of each of several contenders say (Agarwal et al. 2021, arXiv:2108.13264).

Numbers equal those of the package `rliable`: `aggregate_iqm`, `probability_of_improvement`, and
its stratified percentile bootstrap to the noise of the draws.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from xlstm_rl.bootstrap import Numbers

Interval = tuple[float, float]


def interquartile_mean(values: Numbers) -> Numbers:
    """Return the mean of the middle half of values `[..., N]`, a quarter of them cut at each end.

    Of fewer than four values none is cut.
    """
    cut = values.shape[-1] // 4
    kept = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut]
    means: Numbers = kept.mean(-1)
    return means


def improvement(one: Numbers, other: Numbers) -> Numbers:
    """Return the probability that a run of one, `[..., N]`, beats a run of the other, `[..., M]`.

    Equal values count half (Mann and Whitney's U over N M).
    """
    first, second = one[..., :, None], other[..., None, :]
    wins: Numbers = ((first > second) + 0.5 * (first == second)).mean((-2, -1))
    return wins


def interval_of(
    statistic: Callable[..., Numbers],
    *samples: Sequence[float] | Numbers,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval | None:
    """Return the percentile bootstrap interval of a statistic of one or several samples.

    Each sample is drawn anew by itself, with replacement.

    Args:
        statistic: maps arrays `[R, N]`, `[R, M]`, ... of drawn values to `[R]`.
        samples: `[N]`, `[M]`, ...: a value for each run.
        confidence: how often such an interval holds the true value.
        resamples: R, how often they are drawn.
        seed: of the draws.

    Returns:
        The ends; None: a sample has fewer than two values.
    """
    arrays = [np.asarray(sample, dtype=np.float64) for sample in samples]
    if min(map(len, arrays)) < 2:
        return None
    generator = np.random.default_rng(seed)
    drawn = [one[generator.integers(len(one), size=(resamples, len(one)))] for one in arrays]
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(statistic(*drawn), [tail, 100.0 - tail])
    return float(low), float(high)


def mean_improvement(pairs: Sequence[tuple[Numbers, Numbers]]) -> tuple[float, Interval | None]:
    """Return the probability of improvement over several tasks, and its interval.

    Args:
        pairs: for each task the values of one contender's runs and of the other's.
    """

    def over_tasks(*drawn: Numbers) -> Numbers:
        tasks = zip(drawn[::2], drawn[1::2], strict=True)
        means: Numbers = np.mean([improvement(one, other) for one, other in tasks], axis=0)
        return means

    samples = [values for pair in pairs for values in pair]
    return float(over_tasks(*samples)), interval_of(over_tasks, *samples)


def median_reached(steps: Sequence[float | None]) -> float | None:
    """Return the median of the steps after which runs reached something.

    None: half of them or more did not.

    Runs that never did (None) count as later than all others, so that they are not left out.
    """
    if not steps:
        return None
    middle = float(np.median([math.inf if one is None else one for one in steps]))
    return None if middle == math.inf else middle
