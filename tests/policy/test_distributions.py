import gymnasium
import numpy as np
import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal

from xlstm_rl.policy.distributions import Categorical, DiagonalGaussian, make_distribution


def test_categorical_agrees_with_torch() -> None:
    ours, logits = Categorical(5), torch.randn(3, 7, 5)
    action = torch.randint(5, (3, 7))
    theirs = TorchCategorical(logits=logits)
    log_prob, entropy = ours.log_prob_and_entropy(logits, action)
    torch.testing.assert_close(log_prob, theirs.log_prob(action))
    torch.testing.assert_close(entropy, theirs.entropy())


def test_categorical_samples_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.7, 0.2, 0.1])
    logits = (probabilities.log() + 3.0).expand(200_000, 3)
    drawn = Categorical(3).sample(logits, torch.Generator().manual_seed(1))
    share = torch.bincount(drawn, minlength=3) / 200_000
    # Five standard errors of a share near one half are 0.0056.
    torch.testing.assert_close(share, probabilities, atol=0.0056, rtol=0)


def test_a_certain_choice_has_entropy_zero_and_finite_gradients() -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    log_prob, entropy = Categorical(2).log_prob_and_entropy(logits, torch.tensor([0]))
    (log_prob + entropy).sum().backward()
    assert entropy.item() == 0.0
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_gaussian_agrees_with_torch() -> None:
    ours = DiagonalGaussian(np.full(2, -np.inf), np.full(2, np.inf))
    mean, log_std, action = (torch.randn(4, 6, 2) for _ in range(3))
    theirs = Independent(Normal(mean, log_std.exp()), 1)
    log_prob, entropy = ours.log_prob_and_entropy(torch.cat((mean, log_std), -1), action)
    torch.testing.assert_close(log_prob, theirs.log_prob(action))
    torch.testing.assert_close(entropy, theirs.entropy())


def test_gaussian_samples_have_the_mean_and_deviation_asked_for() -> None:
    ours = DiagonalGaussian(np.full(2, -np.inf), np.full(2, np.inf))
    params = torch.tensor([1.0, -2.0, 0.0, -1.0]).expand(100_000, 4)
    drawn = ours.sample(params, torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn.mean(0), torch.tensor([1.0, -2.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.tensor([1.0, np.e**-1]), atol=0.02, rtol=0)


def test_bounded_actions_are_scaled_and_clipped() -> None:
    ours = DiagonalGaussian(np.array([-2.0, 0.0]), np.array([2.0, 1.0]))
    out = ours.to_env(torch.tensor([[0.0, 0.0], [1.0, -1.0], [3.0, -3.0]]))
    assert out.tolist() == [[0.0, 0.5], [2.0, 0.0], [2.0, 0.0]]


def test_unbounded_actions_pass_as_they_are() -> None:
    ours = DiagonalGaussian(np.array([-np.inf]), np.array([3.0]))
    assert ours.to_env(torch.tensor([[-50.0], [5.0]])).tolist() == [[-50.0], [3.0]]


def test_discrete_actions_start_where_the_space_does() -> None:
    distribution = make_distribution(gymnasium.spaces.Discrete(3, start=-1))
    assert distribution.to_env(torch.tensor([0, 2])).tolist() == [-1, 1]


def test_other_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match=r"MultiBinary.*expected Discrete, or Box"):
        make_distribution(gymnasium.spaces.MultiBinary(3))
