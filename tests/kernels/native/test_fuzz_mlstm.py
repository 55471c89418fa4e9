"""Any shapes, resets, gates and options: the mLSTM block in C against the float64 reference."""

import random

import pytest

from .mlstm_cases import Case, hold


def draw(seed):
    """A case out of a seed."""
    rng = random.Random(seed)
    H = rng.choice([1, 2, 3, 4])
    S = rng.choice([1, 2, 3, 4, 4, 4, 5, 8])
    K = S * rng.choice([1, 2, 3, 4, 8])
    return Case(
        B=rng.randint(1, 5),
        T=rng.choice([1, 2, 5, 16, 31, 32, 33, 64, rng.randint(1, 100)]),
        D=rng.randint(1, 40),
        I=H * K,
        H=H,
        W=rng.choice([0, 2, 3, 4, 4, 4, 9]),
        S=S,
        bias=rng.random() < 0.3,
        forget_gate=rng.choice(["sigmoid", "exponential"]),
        state=rng.random() < 0.6,
        resets=rng.choice([0, 0.02, 0.2, 1]),
        gates=rng.choice([0.5, 0.5, 3]),
        seed=seed,
    )


@pytest.mark.parametrize("seed", range(60))
def test_any_block_equals_the_float64_reference(seed):
    hold(draw(seed), limit=2e-5, times=10)
