"""How sure a mean of a few numbers is: percentile intervals from resampling."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_BLOCK = 1 << 20
"""Numbers drawn at once: memory stays small for any count of resamples."""


def bootstrap_interval(
    values: Sequence[float] | Numbers,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval of the mean (Efron 1979); None below two values.

    Args:
        values: `[N]`, independent of each other: one per episode, or one per run.
        confidence: how often such an interval holds the true mean, between 0 and 1.
        resamples: how often the values are drawn anew, with replacement.
        seed: of the draws; the same values give the same interval.

    Raises:
        ValueError: `confidence` does not lie between 0 and 1.
    """
    bands = bootstrap_bands(np.asarray(values, dtype=np.float64), confidence, resamples, seed)
    return None if bands is None else (float(bands[0]), float(bands[1]))


def bootstrap_bands(
    values: Numbers, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[Numbers, Numbers] | None:
    """Return the lower and upper ends `[...]` for the mean over the first axis of `[N, ...]`.

    Whole rows are resampled, so that a band around curves keeps each curve together. None: there
    are fewer than two rows.

    Raises:
        ValueError: `confidence` does not lie between 0 and 1.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence={confidence}: expected a number between 0 and 1")
    count = len(values)
    if count < 2:
        return None
    generator = np.random.default_rng(seed)
    flat = values.reshape(count, -1)
    weights = np.empty((resamples, count))
    block = max(1, _BLOCK // count)
    for start in range(0, resamples, block):
        end = min(start + block, resamples)
        drawn = generator.integers(count, size=(end - start, count))
        drawn += np.arange(end - start)[:, None] * count
        counts = np.bincount(drawn.ravel(), minlength=(end - start) * count)
        weights[start:end] = counts.reshape(-1, count) / count
    tail = 50.0 * (1.0 - confidence)
    ends = np.empty((2, flat.shape[1]))
    columns = max(1, _BLOCK // resamples)
    for start in range(0, flat.shape[1], columns):
        means = weights @ flat[:, start : start + columns]
        ends[:, start : start + columns] = np.percentile(means, [tail, 100.0 - tail], axis=0)
    return ends[0].reshape(values.shape[1:]), ends[1].reshape(values.shape[1:])
