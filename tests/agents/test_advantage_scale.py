"""The least divisor of normalised advantages: noise that is left of a solved task stays small."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl import Callback, RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.advantage_scale import AdvantageScale
from xlstm_rl.agents.config import A2CConfig, PPOConfig
from xlstm_rl.agents.losses import normalized
from xlstm_rl.errors import NonFiniteLossError

ADVANTAGE = torch.tensor([[-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]])
DEVIATION = math.sqrt(6 / 5)


def scaled(scale: AdvantageScale, advantage: torch.Tensor, valid: Any = None) -> float:
    """Return the deviation that is left of normalised advantages."""
    x = normalized(advantage, valid, least=scale.take(advantage, valid))
    return (x if valid is None else x[valid]).std().item()


def test_small_advantages_after_large_ones_stay_small() -> None:
    scale = AdvantageScale(0.9)
    assert scaled(scale, ADVANTAGE) == pytest.approx(1.0)
    assert scaled(scale, ADVANTAGE / 100) == pytest.approx(0.01 / 0.9)
    assert scaled(scale, ADVANTAGE / 100) == pytest.approx(0.01 / 0.9**2)


def test_larger_advantages_are_divided_by_their_own_deviation() -> None:
    scale = AdvantageScale(0.9)
    scale.take(ADVANTAGE, None)
    assert scaled(scale, ADVANTAGE * 100) == pytest.approx(1.0)
    assert scale.state() == pytest.approx(100 * DEVIATION)


def test_without_decay_to_hold_on_to_each_rollout_stands_for_itself() -> None:
    scale = AdvantageScale(0.0)
    scale.take(ADVANTAGE, None)
    assert scaled(scale, ADVANTAGE / 100) == pytest.approx(1.0)
    assert scale.state() == 0.0


def test_steps_that_do_not_count_change_nothing() -> None:
    scale = AdvantageScale(0.9)
    valid = torch.tensor([[True, True, True], [True, True, False]])
    scale.take(ADVANTAGE.masked_fill(~valid, 1e6), valid)
    assert scale.state() == pytest.approx(ADVANTAGE[valid].std().item())
    for none in (
        torch.zeros_like(valid),
        torch.zeros_like(valid).index_fill(0, torch.tensor(0), 0),
    ):
        before = scale.state()
        scale.take(ADVANTAGE, none)
        assert scale.state() == pytest.approx(0.9 * before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_advantage_that_is_not_finite_is_not_remembered(value: float) -> None:
    scale = AdvantageScale(0.9)
    scale.take(ADVANTAGE, None)
    scale.take(ADVANTAGE.clone().index_fill(0, torch.tensor(0), value), None)
    assert scale.state() == pytest.approx(0.9 * DEVIATION)


def test_it_is_an_option_of_normalised_advantages_alone() -> None:
    PPOConfig(normalize_advantage=False)
    with pytest.raises(ValueError, match="advantage_scale_decay"):
        PPOConfig(normalize_advantage=False, advantage_scale_decay=0.5)
    with pytest.raises(ValueError, match="advantage_scale_decay"):
        A2CConfig(advantage_scale_decay=0.5)


class Faint(gymnasium.Env[Any, Any]):
    """The first episodes pay 1 for one action, all later ones a thousandth for the other."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        strong = self.steps <= 16
        reward = float(action == 0) if strong else 1e-3 * float(action == 1)
        return np.zeros(1, np.float32), reward, True, False, {}


@pytest.mark.parametrize("algo", [RecurrentPPO, RecurrentA2C])
@pytest.mark.parametrize("decay", [0.0, 0.99])
def test_an_agent_is_moved_by_faint_rewards_only_where_it_forgets(algo: Any, decay: float) -> None:
    agent = algo(
        Faint,
        seed=1,
        env={"num_envs": 4, "vectorization": "sync"},
        memory={"kind": "mlp", "width": 8},
        agent={"rollout_steps": 16, "gamma": 0.0, "gae_lambda": 0.0, "max_grad_norm": 1e9}
        | {"optimizer": "SGD", "learning_rate": 0.3, "learning_rate_end": 1.0, "value_coef": 0.0}
        | {"normalize_advantage": True, "advantage_scale_decay": decay}
        | ({"entropy_coef": 0.0} if algo is RecurrentA2C else {}),
        logger={"kind": "none"},
        total_steps=64 * 3,
    )
    moves: list[float] = []
    bias = agent.policy.network.action_head.output.bias
    before = bias.detach().clone()

    def note(*_: Any) -> None:
        moves.append((bias.detach() - before).abs().max().item())
        before.copy_(bias.detach())

    agent.learn(64 * 3, on_update=note)
    first, *_, last = moves
    assert first > 0
    assert (last < 0.1 * first) == (decay > 0)


def test_a_checkpoint_holds_it(tmp_path: Any) -> None:
    agent = RecurrentPPO(
        "CartPole-v1",
        env={"num_envs": 4},
        memory={"width": 16},
        agent={"rollout_steps": 16, "advantage_scale_decay": 0.9},
        logger={"kind": "none"},
        total_steps=1_000,
    )
    agent.learn(128)
    assert agent.advantage_scale.state() > 0
    agent.save(tmp_path / "run")
    loaded = RecurrentPPO.load(tmp_path / "run")
    assert loaded.advantage_scale.state() == agent.advantage_scale.state()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_loaded_goes_on_to_the_bit(dtype: torch.dtype) -> None:
    first, second = (torch.randn(4, 8, dtype=dtype) / n for n in (1, 100))
    whole, before, after = (AdvantageScale(0.99) for _ in range(3))
    for scale in (whole, before):
        scale.take(first, None)
    after.load_state(before.state(), torch.device("cpu"))
    assert after.state() == before.state()
    expected, found = whole.take(second, None), after.take(second, None)
    assert found is not None and expected is not None
    assert found.dtype == expected.dtype == dtype and torch.equal(found, expected)


class Outlier(Callback):
    """Puts a reward beyond all others into one rollout."""

    def __init__(self, number: int) -> None:
        self.number, self.count = number, 0

    def on_rollout_end(self, rollout: Any) -> None:
        self.count += 1
        if self.count == self.number:
            rollout.data["reward"][1, 3] = 1e30


@pytest.mark.parametrize("algo", [RecurrentPPO, RecurrentA2C])
@pytest.mark.parametrize("number", [1, 3])
def test_an_update_that_fails_leaves_it_as_it_was(algo: Any, number: int) -> None:
    agent = algo(
        "CartPole-v1",
        env={"num_envs": 4},
        memory={"kind": "gru", "width": 8},
        agent={"rollout_steps": 8, "normalize_advantage": True, "advantage_scale_decay": 0.99},
        normalization={"reward": False},
        logger={"kind": "none"},
    )
    states = [0.0]
    with pytest.raises(NonFiniteLossError):
        agent.learn(
            32 * 5,
            on_update=lambda *_: states.append(agent.advantage_scale.state()),
            callbacks=Outlier(number),
        )
    assert len(states) == number
    assert agent.advantage_scale.state() == states[-1]
    agent.learn(32)
    assert 0 < agent.advantage_scale.state() < 1e3
