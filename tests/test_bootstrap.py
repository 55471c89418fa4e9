"""Against what is known without resampling: binomial quantiles, and the normal approximation."""

import math

import numpy as np
import pytest

from xlstm_rl.bootstrap import bootstrap_bands, bootstrap_interval


def binomial_quantile(count: int, p: float, share: float) -> int:
    total = 0.0
    for hits in range(count + 1):
        total += math.comb(count, hits) * p**hits * (1 - p) ** (count - hits)
        if total >= share:
            return hits
    return count


@pytest.mark.parametrize(("count", "hits"), [(20, 7), (40, 34), (10, 5)])
def test_the_interval_of_successes_is_that_of_the_binomial_distribution(
    count: int, hits: int
) -> None:
    # Resampled means of zeros and ones are binomial counts over `count`.
    interval = bootstrap_interval([1.0] * hits + [0.0] * (count - hits), 0.9, resamples=100_000)
    expected = [binomial_quantile(count, hits / count, share) / count for share in (0.05, 0.95)]
    assert interval == pytest.approx(expected, abs=1.01 / count)
    assert interval is not None
    assert any(end == pytest.approx(known) for end, known in zip(interval, expected, strict=True))


def test_many_values_have_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 2000)
    half = 1.959964 * values.std() / math.sqrt(2000)
    interval = bootstrap_interval(values)
    assert interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_it_is_the_same_every_time_and_grows_with_the_confidence() -> None:
    values = [1.0, 4.0, 2.0, 8.0]
    first, wide = bootstrap_interval(values), bootstrap_interval(values, 0.999)
    assert first == bootstrap_interval(values)
    assert first and wide and wide[0] <= first[0] < first[1] <= wide[1]
    assert min(values) <= wide[0] and wide[1] <= max(values)


def test_one_value_has_no_interval_and_equal_ones_have_none_of_width() -> None:
    assert bootstrap_interval([3.0]) is None
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([3.0, 3.0]) == (3.0, 3.0)


def test_bands_are_the_intervals_of_each_column() -> None:
    values = np.random.default_rng(0).normal(size=(6, 4, 300))
    bands = bootstrap_bands(values)
    assert bands is not None and bands[0].shape == (4, 300)
    for row, column in ((0, 0), (3, 299), (2, 150)):
        assert bootstrap_interval(values[:, row, column]) == pytest.approx(
            (bands[0][row, column], bands[1][row, column])
        )


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=f"confidence={confidence}: expected a number between"):
        bootstrap_interval([1.0, 2.0], confidence)
