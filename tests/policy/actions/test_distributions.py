from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Independent,
    Normal,
    TanhTransform,
    TransformedDistribution,
)
from torch.distributions import Categorical as TorchCategorical

from xlstm_rl.envs.spaces.leaves import map_leaves
from xlstm_rl.policy import PolicyConfig
from xlstm_rl.policy.actions.categorical import Categorical, MultiCategorical
from xlstm_rl.policy.actions.distributions import make_distribution
from xlstm_rl.policy.actions.gaussian import DiagonalGaussian, SquashedGaussian


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


def test_choices_side_by_side_agree_with_torch() -> None:
    counts = [2, 5, 3]
    ours, logits = MultiCategorical(counts), torch.randn(4, 6, 10)
    action = torch.stack([torch.randint(n, (4, 6)) for n in counts], -1)
    theirs = [TorchCategorical(logits=part) for part in logits.split(counts, -1)]
    log_prob, entropy = ours.log_prob_and_entropy(logits, action)
    expected = sum(one.log_prob(action[..., k]) for k, one in enumerate(theirs))
    torch.testing.assert_close(log_prob, expected)
    torch.testing.assert_close(entropy, sum(one.entropy() for one in theirs))
    modes = [one.logits.argmax(-1) for one in theirs]
    torch.testing.assert_close(ours.mode(logits), torch.stack(modes, -1))


@pytest.mark.parametrize("counts", [[3, 3], [3, 2]])
def test_choices_side_by_side_are_drawn_independently(counts: list[int]) -> None:
    ours = MultiCategorical(counts)
    logits = torch.randn(sum(counts))
    drawn = ours.sample(logits.expand(200_000, -1), torch.Generator().manual_seed(1))
    table = torch.zeros(counts)
    table.index_put_(tuple(drawn.unbind(-1)), torch.tensor(1 / 200_000), accumulate=True)
    first, second = (part.softmax(-1) for part in logits.split(counts))
    torch.testing.assert_close(table, torch.outer(first, second), atol=0.0056, rtol=0)


def test_multi_binary_is_a_bernoulli_per_bit() -> None:
    space = gymnasium.spaces.MultiBinary((2, 2))
    ours, logits = make_distribution(space), torch.randn(7, 8)
    action = torch.randint(2, (7, 4))
    pairs = logits.view(7, 4, 2)
    theirs = Independent(Bernoulli(logits=pairs[..., 1] - pairs[..., 0]), 1)
    log_prob, entropy = ours.log_prob_and_entropy(logits, action)
    torch.testing.assert_close(log_prob, theirs.log_prob(action.float()))
    torch.testing.assert_close(entropy, theirs.entropy())
    assert all(space.contains(one) for one in ours.to_env(action).numpy())


def _squashed(state_std: bool = False) -> SquashedGaussian:
    return SquashedGaussian(np.array([-2.0, 0.0]), np.array([2.0, 1.0]), state_std)


def test_squashed_gaussian_agrees_with_torch_in_units_of_half_the_range() -> None:
    mean, log_std = torch.randn(5, 2, dtype=torch.float64), 0.5 * torch.randn(5, 2).double()
    u = mean + log_std.exp() * torch.randn(5, 2)
    theirs = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    log_prob, _ = _squashed().log_prob_and_entropy(torch.cat((mean, log_std), -1), u)
    torch.testing.assert_close(log_prob, theirs.log_prob(u.tanh()).sum(-1), rtol=1e-6, atol=1e-6)
    # the density of what the environment sees integrates to one, so it is lower by the scale
    env = TransformedDistribution(
        Normal(mean, log_std.exp()),
        [TanhTransform(), AffineTransform(torch.tensor([0.0, 0.5]), torch.tensor([2.0, 0.5]))],
    )
    action = _squashed().to_env(u.float())
    shifted = env.log_prob(action.double()).sum(-1) + np.log(2.0 * 0.5)
    torch.testing.assert_close(log_prob, shifted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("std", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("mean", [0.0, 1.5, -4.0])
def test_squashed_entropy_is_the_integral_of_the_density(mean: float, std: float) -> None:
    params = torch.tensor([mean, 0.0, np.log(std), 0.0])
    both = _squashed().log_prob_and_entropy(params, torch.zeros(2))[1]
    rest = _squashed().log_prob_and_entropy(torch.zeros(4), torch.zeros(2))[1] / 2
    # - integral of N(u) (log N(u) - log(1 - tanh(u)^2)) du, by the trapezium rule in float64
    u = torch.linspace(mean - 10 * std, mean + 10 * std, 40_001, dtype=torch.float64)
    log_n = Normal(torch.tensor(mean).double(), torch.tensor(std).double()).log_prob(u)
    log_density = log_n - 2 * (np.log(2) - u - torch.nn.functional.softplus(-2 * u))
    expected = torch.trapezoid(-log_n.exp() * log_density, u)
    torch.testing.assert_close((both - rest).double(), expected, atol=2e-3, rtol=0)


def test_squashed_actions_far_beyond_rounding_stay_finite_and_inside() -> None:
    ours, u = _squashed(), torch.tensor([[60.0, -60.0], [1e4, -1e4]])
    params = torch.cat((u, torch.zeros(2, 2)), -1).requires_grad_()
    log_prob, entropy = ours.log_prob_and_entropy(params, u)
    (log_prob + entropy).sum().backward()
    # log N(0) per axis, less log(4 exp(-2 |u|)) per axis
    expected = 2 * (-0.5 * np.log(2 * np.pi) - np.log(4.0)) + 4 * torch.tensor([60.0, 1e4])
    torch.testing.assert_close(log_prob.detach(), expected)
    assert params.grad is not None and torch.isfinite(params.grad).all()
    assert ours.to_env(u).tolist() == [[2.0, 0.0], [2.0, 0.0]]


def test_only_actions_with_bounds_are_squashed_and_half_bounds_refused() -> None:
    ours = SquashedGaussian(np.array([-np.inf, -1.0]), np.array([np.inf, 1.0]))
    assert ours.to_env(torch.tensor([[7.0, 7.0]])).tolist() == [[7.0, pytest.approx(1.0, abs=1e-5)]]
    plain = DiagonalGaussian(np.array([-np.inf]), np.array([np.inf]))
    params, u = torch.randn(3, 4), torch.randn(3, 2)
    free = plain.log_prob_and_entropy(params[:, ::2], u[:, :1])[0]
    bounded = SquashedGaussian(np.array([-1.0]), np.array([1.0]))
    rest = bounded.log_prob_and_entropy(params[:, 1::2], u[:, 1:])[0]
    torch.testing.assert_close(ours.log_prob_and_entropy(params, u)[0], free + rest)
    with pytest.raises(ValueError, match=r"bounds='tanh' needs two bounds or none"):
        SquashedGaussian(np.array([0.0]), np.array([np.inf]))


def test_deviations_from_the_state_start_where_asked_and_stay_in_range() -> None:
    ours = DiagonalGaussian(np.full(1, -1.0), np.full(1, 1.0), True, initial_log_std=-0.7)
    assert (ours.num_params, ours.num_free, ours.num_outputs) == (2, 0, 2)
    _, entropy = ours.log_prob_and_entropy(torch.tensor([[0.0, 0.0]]), torch.zeros(1, 1))
    expected = Normal(0.0, np.exp(-0.7)).entropy()
    torch.testing.assert_close(entropy[0], expected)
    for extreme in (-1e6, 1e6):
        log_prob, _ = ours.log_prob_and_entropy(torch.tensor([[0.0, extreme]]), torch.ones(1, 1))
        assert torch.isfinite(log_prob).all()


NESTED = gymnasium.spaces.Dict(
    {
        "arm": gymnasium.spaces.Box(-1, 1, (2,)),
        "gear": gymnasium.spaces.Discrete(4, start=1),
        "rest": gymnasium.spaces.Tuple(
            [gymnasium.spaces.MultiBinary(2), gymnasium.spaces.Box(0, 1, (1, 2))]
        ),
    }
)


@pytest.mark.parametrize("std", ["free", "state"])
def test_a_joint_distribution_sums_over_its_leaves(std: str) -> None:
    config = PolicyConfig(action_std=std)  # type: ignore[arg-type]
    joint = make_distribution(NESTED, config)
    leaves = [NESTED["arm"], NESTED["gear"], NESTED["rest"][0], NESTED["rest"][1]]
    boxes = [isinstance(leaf, gymnasium.spaces.Box) for leaf in leaves]
    parts = [
        make_distribution(leaf, config if box else None)
        for leaf, box in zip(leaves, boxes, strict=True)
    ]
    own = [torch.randn(3, part.num_params) for part in parts]
    actions = [part.sample(params) for part, params in zip(parts, own, strict=True)]
    # the network's outputs of all leaves, then their free parameters
    cuts = [part.num_outputs for part in parts]
    params = torch.cat([x[:, :n] for x, n in zip(own, cuts, strict=True)], -1)
    params = torch.cat([params, *[x[:, n:] for x, n in zip(own, cuts, strict=True)]], -1)
    action = torch.cat([x.reshape(3, -1).float() for x in actions], -1)
    found = joint.log_prob_and_entropy(params, action)
    alone = [p.log_prob_and_entropy(x, a) for p, x, a in zip(parts, own, actions, strict=True)]
    for ours, theirs in zip(found, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(ours, sum(theirs))
    features = torch.cat([p.features(a) for p, a in zip(parts, actions, strict=True)], -1)
    torch.testing.assert_close(joint.features(action), features)
    assert features.shape[-1] == joint.num_features
    batch = joint.to_env(action)
    for row in range(3):
        one = map_leaves(lambda x, row=row: x[row].numpy(), batch)
        assert NESTED.contains(one)
    modes = joint.mode(params)
    torch.testing.assert_close(modes[:, :2], parts[0].mode(own[0]))


def test_what_a_network_reads_of_an_action_lies_within_its_bounds() -> None:
    far = torch.tensor([[5.0, -5.0]])
    assert DiagonalGaussian(np.array([-2.0, -np.inf]), np.array([2.0, 0.0])).features(
        far
    ).tolist() == [[1.0, -5.0]]
    assert _squashed().features(far).abs().max() < 1
    assert Categorical(3).features(torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    codes = MultiCategorical([2, 3]).features(torch.tensor([[1, 2]]))
    assert codes.tolist() == [[0, 1, 0, 0, 1]]


def test_other_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Text.*expected Discrete, MultiDiscrete"):
        make_distribution(gymnasium.spaces.Text(3))


@pytest.mark.parametrize("kind", [Categorical, MultiCategorical])
@pytest.mark.parametrize("method", ["log_prob_and_entropy", "mean_log_prob"])
def test_a_loss_asks_what_a_subclass_says(kind: Any, method: str) -> None:
    def doubled(self: Any, *args: torch.Tensor) -> Any:
        found = getattr(kind, method)(self, *args)
        return tuple(2 * one for one in found) if isinstance(found, tuple) else 2 * found

    size: Any = 3 if kind is Categorical else [3]
    plain, own = kind(size), type("Own", (kind,), {method: doubled})(size)
    params = torch.randn(2, 4, 3, requires_grad=True)
    action = torch.randint(3, (2, 4) if kind is Categorical else (2, 4, 1))
    expected = list(plain.loss_terms(params, action, True))
    for i in (0, 1) if method == "log_prob_and_entropy" else (2,):
        expected[i] = 2 * expected[i]
    for one, other in zip(own.loss_terms(params, action, True), expected, strict=True):
        torch.testing.assert_close(one, other)
