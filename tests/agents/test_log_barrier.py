"""The log barrier: the mean log-probability of all choices, in the loss of both algorithms."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.losses import with_log_barrier
from xlstm_rl.config import ConfigError
from xlstm_rl.policy.actions.categorical import MASKED_LOGIT
from xlstm_rl.policy.actions.distributions import make_distribution
from xlstm_rl.policy.config import PolicyConfig

BOX = spaces.Box(-1, 1, (2,), np.float32)


def mean_log_prob(space: spaces.Space[Any], params: Tensor) -> Tensor | None:
    return make_distribution(space, PolicyConfig()).mean_log_prob(params)


def test_of_one_choice_it_is_the_mean_of_their_log_probabilities() -> None:
    logits = torch.randn(3, 4, 5)
    found = mean_log_prob(spaces.Discrete(5), logits)
    torch.testing.assert_close(found, logits.log_softmax(-1).mean(-1))


@pytest.mark.parametrize("counts", [[3, 3], [2, 4, 3]])
def test_of_several_choices_it_is_the_sum(counts: list[int]) -> None:
    logits = torch.randn(6, sum(counts))
    expected = sum(part.log_softmax(-1).mean(-1) for part in logits.split(counts, -1))
    found = mean_log_prob(spaces.MultiDiscrete(counts), logits)
    torch.testing.assert_close(found, expected)
    found = mean_log_prob(spaces.MultiBinary(4), torch.zeros(6, 8))
    torch.testing.assert_close(found, torch.full((6,), 4 * math.log(0.5)))


@pytest.mark.parametrize("counts", [[4], [4, 3]])
def test_what_is_masked_does_not_count(counts: list[int]) -> None:
    logits = torch.randn(7, sum(counts))
    logits[:, 1:3] = MASKED_LOGIT
    logits.requires_grad_()
    space: Any = spaces.Discrete(4) if len(counts) == 1 else spaces.MultiDiscrete(counts)
    found = mean_log_prob(space, logits)
    assert found is not None
    expected = logits[:, [0, 3]].log_softmax(-1).mean(-1)
    if len(counts) == 2:
        expected = expected + logits[:, 4:].log_softmax(-1).mean(-1)
    torch.testing.assert_close(found, expected)
    (grad,) = torch.autograd.grad(found.sum(), logits)
    assert torch.isfinite(grad).all()
    assert not grad[:, 1:3].any()


def test_numbers_have_none_and_parts_of_a_space_add_up() -> None:
    assert mean_log_prob(BOX, torch.zeros(3, 4)) is None
    only_numbers = spaces.Dict({"a": BOX, "b": BOX})
    assert mean_log_prob(only_numbers, torch.zeros(3, 8)) is None
    space = spaces.Dict({"a": spaces.Discrete(3), "b": BOX, "c": spaces.Discrete(2)})
    distribution = make_distribution(space, PolicyConfig())
    found = distribution.mean_log_prob(torch.zeros(5, distribution.num_params))
    torch.testing.assert_close(found, torch.full((5,), -math.log(3) - math.log(2)))


def test_its_gradient_does_not_fade_on_a_choice_that_is_nearly_lost() -> None:
    """`coef * (1 / n - p)` on each logit, averaged over the valid steps."""
    logits = torch.tensor([[12.0, 0.0, 0.0], [0.0, 1.0, 2.0], [3.0, 0.0, 0.0]], requires_grad=True)
    valid, log = torch.tensor([True, True, False]), {}
    barrier = mean_log_prob(spaces.Discrete(3), logits)
    loss = with_log_barrier(torch.tensor(0.0), log, barrier, valid, 0.3)
    (grad,) = torch.autograd.grad(-loss, logits)
    expected = 0.3 / 2 * (1 / 3 - logits.detach().softmax(-1))
    expected[2] = 0
    torch.testing.assert_close(grad, expected)
    assert grad[0, 1] > 0.04
    assert log["log_barrier"].item() == pytest.approx(logits[:2].log_softmax(-1).mean().item())


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
@pytest.mark.few(1)
def test_a_policy_that_is_certain_becomes_less_so(algorithm: Any) -> None:
    """Without rewards and without another bonus it stays about as it is."""
    probability = {}
    for coef in (0.0, 1.0):
        agent = {"rollout_steps": 8, "log_barrier_coef": coef, "entropy_coef": 0.0}
        policy, env = {"critic": "separate"}, {"num_envs": 4}
        with algorithm(
            _Silent, agent=agent, policy=policy, env=env, logger={"kind": "none"}
        ) as one:
            with torch.no_grad():
                one.policy.network.action_head.output.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
            one.learn(32 * 60)
            seen, action = torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.int64)
            probability[coef] = one.policy.evaluate_actions(seen, action).log_prob.exp().item()
    assert probability[0.0] > 0.8, probability
    assert probability[1.0] < 0.5, probability


@pytest.mark.parametrize("space", [BOX, spaces.Discrete(3), spaces.MultiDiscrete([2, 3])])
@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
def test_every_space_trains_and_choices_log_it(algorithm: Any, space: Any, tmp_path: Any) -> None:
    agent = {"rollout_steps": 8, "log_barrier_coef": 0.001}
    options: Any = {"env": {"num_envs": 4}, "logger": {"kind": "csv"}}
    with algorithm(
        lambda: _Silent(space), agent=agent, run_dir=str(tmp_path / "a"), **options
    ) as one:
        one.learn(256)
    header = (tmp_path / "a" / "metrics.csv").read_text().splitlines()[0]
    assert ("loss/log_barrier" in header) == (space is not BOX)


def test_ppo_has_one_unless_told_otherwise_and_a2c_does_not() -> None:
    for algorithm, expected in ((RecurrentPPO, 0.003), (RecurrentA2C, 0.0)):
        with algorithm(_Silent, logger={"kind": "none"}) as agent:
            assert agent.algorithm.log_barrier_coef == expected


def test_it_falls_to_its_end() -> None:
    with RecurrentPPO(_Silent, agent={"log_barrier_coef": 0.2}, logger={"kind": "none"}) as agent:
        assert agent.schedules.at(0.0)["log_barrier_coef"] == 0.2
        assert agent.schedules.at(0.5)["log_barrier_coef"] == pytest.approx(0.1)
        assert agent.schedules.at(1.0)["log_barrier_coef"] == 0.0


@pytest.mark.parametrize(
    "options, says",
    [
        ({"log_barrier_coef": -0.1}, "a finite number >= 0"),
        ({"log_barrier_coef": 0.0, "log_barrier_coef_end": 0.5}, "agent.log_barrier_coef is 0"),
        ({"log_barrier_coef": 0.1, "log_barrier_coef_schedule": "quadratic"}, "quadratic"),
    ],
)
def test_bad_options_say_what_was_expected(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RecurrentPPO(_Silent, agent=options, logger={"kind": "none"})


class _Silent(gymnasium.Env[Any, Any]):
    """Episodes of eight steps, in which nothing pays."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, space: Any = None) -> None:
        self.action_space = spaces.Discrete(3) if space is None else space
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self._steps += 1
        return np.zeros(2, np.float32), 0.0, self._steps == 8, False, {}
