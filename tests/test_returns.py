import pytest
import torch
from torchrl.objectives.value.functional import generalized_advantage_estimate

from xlstm_rl.returns import generalized_advantage


def _flags(*positions: int, steps: int = 3) -> torch.Tensor:
    flags = torch.zeros(1, steps, dtype=torch.bool)
    for position in positions:
        flags[0, position] = True
    return flags


def test_advantages_of_three_steps_computed_by_hand() -> None:
    reward = torch.tensor([[1.0, 2.0, 3.0]])
    value = torch.tensor([[0.5, 1.0, 1.5]])
    next_value = torch.tensor([[1.0, 1.5, 2.0]])
    advantage, target = generalized_advantage(
        reward, value, next_value, _flags(), _flags(), gamma=0.5, gae_lambda=0.5
    )
    # delta = 1 + .5*1 - .5 = 1;  2 + .5*1.5 - 1 = 1.75;  3 + .5*2 - 1.5 = 2.5
    # A2 = 2.5;  A1 = 1.75 + .25*2.5 = 2.375;  A0 = 1 + .25*2.375 = 1.59375
    assert advantage.tolist() == [[1.59375, 2.375, 2.5]]
    assert target.tolist() == [[2.09375, 3.375, 4.0]]


def test_termination_neither_bootstraps_nor_carries() -> None:
    ones = torch.ones(1, 3)
    advantage, _ = generalized_advantage(
        ones, 0 * ones, 10 * ones, _flags(1), _flags(), gamma=1.0, gae_lambda=1.0
    )
    # A2 = 1 + 10;  A1 = 1;  A0 = (1 + 10) + A1
    assert advantage.tolist() == [[12.0, 1.0, 11.0]]


def test_truncation_bootstraps_but_does_not_carry() -> None:
    ones = torch.ones(1, 3)
    advantage, _ = generalized_advantage(
        ones, 0 * ones, 10 * ones, _flags(), _flags(1), gamma=1.0, gae_lambda=1.0
    )
    # A2 = 11;  A1 = 11, nothing of A2;  A0 = 11 + A1
    assert advantage.tolist() == [[22.0, 11.0, 11.0]]


def test_agrees_with_torchrl_on_random_rollouts() -> None:
    shape = (5, 40)
    reward, value, next_value = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    terminated, truncated = torch.rand(shape) < 0.1, torch.rand(shape) < 0.1
    truncated &= ~terminated
    # TorchRL rounds its discounts to float32; these are exact there.
    gamma, gae_lambda = 31 / 32, 29 / 32
    ours = generalized_advantage(
        reward, value, next_value, terminated, truncated, gamma, gae_lambda
    )
    theirs = generalized_advantage_estimate(
        gamma,
        gae_lambda,
        value.unsqueeze(-1),
        next_value.unsqueeze(-1),
        reward.unsqueeze(-1),
        (terminated | truncated).unsqueeze(-1),
        terminated.unsqueeze(-1),
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.squeeze(-1), rtol=1e-9, atol=1e-9)


def test_shapes_that_differ_are_refused() -> None:
    x = torch.zeros(2, 3)
    flag = torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\(2, 2\).*expected five of \[B, T\]"):
        generalized_advantage(x, x, x[:, :2], flag, flag, 0.9, 0.9)
