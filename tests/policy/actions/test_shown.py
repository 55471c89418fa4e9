"""What a family shows of its distributions, and the numbers that decide for an action."""

import inspect

import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl.policy import PolicyConfig
from xlstm_rl.policy.actions.distributions import make_distribution
from xlstm_rl.policy.config import DistributionConfig

TANH = PolicyConfig(action_distribution=DistributionConfig(kind="gaussian", bounds="tanh"))


def test_choices_show_their_probabilities_under_the_names_of_the_environment() -> None:
    made = make_distribution(spaces.Discrete(3, start=-1))
    shown = made.shown(torch.tensor([[0.0, 0.0, np.log(2.0)]]))
    assert {name: float(one) for name, one in shown.items()} == pytest.approx(
        {"probability/-1": 0.25, "probability/0": 0.25, "probability/1": 0.5}
    )


def test_choices_of_the_largest_integers_have_their_own_names() -> None:
    if "dtype" not in inspect.signature(spaces.Discrete).parameters:
        pytest.skip("Gymnasium before 1.2 has no Discrete of another dtype")
    space = spaces.Discrete(2, start=np.uint64(2**64 - 2), dtype=np.uint64)
    made = make_distribution(space)
    assert [*made.shown(torch.zeros(1, 2))] == [
        f"probability/{2**64 - 2}",
        f"probability/{2**64 - 1}",
    ]


def test_numbers_of_choices_show_one_group_each() -> None:
    made = make_distribution(spaces.MultiDiscrete([2, 3], start=[5, 0]))
    shown = made.shown(torch.zeros(4, 5))
    assert [*shown] == [
        *("probability/0/5", "probability/0/6"),
        *("probability/1/0", "probability/1/1", "probability/1/2"),
    ]
    assert shown["probability/0/6"].tolist() == pytest.approx([1 / 2] * 4)
    assert shown["probability/1/2"].tolist() == pytest.approx([1 / 3] * 4)


def test_normals_show_mean_and_deviation_in_the_units_of_the_environment() -> None:
    made = make_distribution(spaces.Box(-1, 3, (2,)))  # half the range is 2, its centre 1
    shown = made.shown(torch.tensor([[0.5, -3.0, 0.0, np.log(0.5)]]))
    assert {name: float(one) for name, one in shown.items()} == pytest.approx(
        {"mean/0": 2.0, "mean/1": -1.0, "std/0": 2.0, "std/1": 1.0}
    )
    squashed = make_distribution(spaces.Box(-1, 3, (1,)), TANH)
    shown = squashed.shown(torch.tensor([[0.5, 0.0]]))
    assert float(shown["mean/0"]) == pytest.approx(1 + 2 * np.tanh(0.5))


def test_parts_of_a_dict_show_theirs_behind_their_names() -> None:
    space = spaces.Dict({"go": spaces.Discrete(2), "turn": spaces.Box(-1, 1, (1,))})
    made = make_distribution(space)
    assert [*made.shown(torch.zeros(1, 4))] == [
        *("go/probability/0", "go/probability/1"),
        *("turn/mean/0", "turn/std/0"),
    ]


def test_the_decision_of_a_choice_is_its_log_odds() -> None:
    params = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    made = make_distribution(spaces.Discrete(4))
    p = torch.distributions.Categorical(logits=params).probs
    action = torch.tensor([0, 3, 1, 2, 2])
    odds = made.decision(params, action)
    chosen = p[torch.arange(5), action]
    torch.testing.assert_close(odds, (chosen / (1 - chosen)).log().unsqueeze(-1))


def test_the_decision_of_an_almost_certain_choice_keeps_its_gradient() -> None:
    params = torch.tensor([[80.0, 0.0]], requires_grad=True)  # log p is 0 in float32, and flat
    odds = make_distribution(spaces.Discrete(2)).decision(params, torch.tensor([0]))
    odds.sum().backward()
    assert params.grad is not None and params.grad.tolist() == [[1.0, -1.0]]


def test_the_decision_of_the_only_choice_has_finite_gradients() -> None:
    params = torch.tensor([[2.0]], requires_grad=True)
    odds = make_distribution(spaces.Discrete(1)).decision(params, torch.tensor([0]))
    odds.sum().backward()
    assert params.grad is not None and params.grad.isfinite().all()


def test_the_decision_of_parts_is_that_of_each_side_by_side() -> None:
    space = spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2,))))
    made = make_distribution(space)
    params = torch.zeros(1, 9)
    params[0, 5:7] = torch.tensor([0.25, -0.5])  # the means stand behind the five logits
    decision = made.decision(params, torch.tensor([[0.0, 2.0, 0.9, 0.9]]))
    assert decision.tolist() == [pytest.approx([0.0, np.log(0.5), 0.25, -0.5])]
