"""The numbers are those of rliable 1.2.0 (with arch 7.2, 50,000 draws; 5,000 where it is slow)."""

import numpy as np
import pytest

from xlstm_rl.comparing.statistics import (
    improvement,
    interquartile_mean,
    interval_of,
    mean_improvement,
    median_reached,
)

A = np.array([3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.0])
B = np.array([2.0, 1.0, 2.5, 1.5, 8.0])
C, D = np.array([0.2, 0.8, 0.5, 0.5]), np.array([0.1, 0.6, 0.5])


@pytest.mark.parametrize(("values", "iqm"), [(A, 3.22), (B, 2.0), (D, 0.4)])
def test_the_interquartile_mean_is_rliables(values: np.ndarray, iqm: float) -> None:
    assert interquartile_mean(values) == pytest.approx(iqm, rel=1e-12)


@pytest.mark.parametrize(
    ("one", "other", "better"), [(A, B, 0.6571428571428571), (C, D, 0.5833333333333334)]
)
def test_the_probability_of_improvement_is_rliables(
    one: np.ndarray, other: np.ndarray, better: float
) -> None:
    assert improvement(one, other) == pytest.approx(better, rel=1e-12)


def test_intervals_are_rliables_to_the_noise_of_the_draws() -> None:
    assert interval_of(interquartile_mean, A, resamples=50_000) == pytest.approx(
        (1.82, 5.92), abs=0.05
    )
    assert interval_of(improvement, A, B) == pytest.approx((0.3143, 1.0), abs=0.03)


def test_over_several_tasks_each_is_drawn_by_itself_as_rliable_does() -> None:
    better, interval = mean_improvement([(A[:4], B[:3]), (C, D)])
    assert better == pytest.approx(0.60416667, abs=1e-8)
    assert interval == pytest.approx((0.29166667, 0.875), abs=0.05)


def test_one_run_has_no_interval() -> None:
    assert interval_of(interquartile_mean, [1.0]) is None
    assert interval_of(improvement, [1.0, 2.0], [3.0]) is None


def test_runs_that_never_came_to_the_threshold_count_as_the_latest() -> None:
    assert median_reached([300.0, None, 100.0]) == 300.0
    assert median_reached([None, 100.0, None]) is None
    assert median_reached([100.0, 300.0]) == 200.0
    assert median_reached([100.0, 300.0, None, 200.0]) == 250.0
    assert median_reached([100.0, None]) is None
    assert median_reached([]) is None
