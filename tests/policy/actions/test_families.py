"""What every registered family of action distributions keeps, over every space that it fits."""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.agents import TrainConfig
from xlstm_rl.cli import main
from xlstm_rl.config import config_from_dict, config_to_dict, parse_config
from xlstm_rl.policy import PolicyConfig
from xlstm_rl.policy.actions.base import ActionDistribution
from xlstm_rl.policy.actions.distributions import make_distribution
from xlstm_rl.policy.config import DISTRIBUTIONS, DistributionConfig

SPACES: dict[str, gymnasium.Space[Any]] = {
    "Discrete": spaces.Discrete(4, start=1),
    "MultiDiscrete": spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [0, 2]]),
    "MultiBinary": spaces.MultiBinary((2, 2)),
    "Box": spaces.Box(-2, 1, (2, 1), np.float32),
    "Box of one axis": spaces.Box(-1, 2, (2,), np.float32),
    "Box without bounds": spaces.Box(-np.inf, np.inf, (3,), np.float32),
}
WITHOUT_ENTROPY_CHECK: set[str] = set()
"""Kinds whose entropy is an approximation on purpose."""


def test_noise_starts_at_half_of_half_the_range() -> None:
    box = gymnasium.spaces.Box(-3.0, 5.0, (2,), np.float32)  # half of it is 4
    distribution = make_distribution(box)
    params = torch.cat((torch.zeros(2), distribution.initial_free()))
    std = distribution.shown(params)["std/0"]
    assert std.item() == pytest.approx(2.0, rel=0.01)


def _made(kind: str, space: gymnasium.Space[Any]) -> ActionDistribution | None:
    options = DistributionConfig(kind=kind)
    found: ActionDistribution | None = DISTRIBUTIONS.target(kind).for_space(space, options)
    return found


CASES = [
    pytest.param(_made(kind, space), space, kind, id=f"{kind}, {name}")
    for kind in DISTRIBUTIONS.classes
    for name, space in SPACES.items()
    if _made(kind, space) is not None
]


def _params(distribution: ActionDistribution, rows: int) -> torch.Tensor:
    return 0.5 * torch.randn(rows, distribution.num_params, generator=torch.manual_seed(0))


@pytest.mark.parametrize(("distribution", "space", "kind"), CASES)
def test_samples_and_modes_are_actions_of_the_space(
    distribution: ActionDistribution, space: gymnasium.Space[Any], kind: str
) -> None:
    params = _params(distribution, 64)
    for action in (distribution.sample(params), distribution.mode(params)):
        assert action.shape == (64, *distribution.action_shape)
        own = distribution.action_dtype
        assert action.dtype == (params.dtype if own.is_floating_point else own)
        assert distribution.features(action).shape == (64, distribution.num_features)
        for one in distribution.to_env(action).numpy():
            assert space.contains(one)
    again = [distribution.sample(params, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*again)
    assert distribution.initial_free().shape == (distribution.num_free,)
    assert distribution.num_outputs + distribution.num_free == distribution.num_params


@pytest.mark.parametrize(("distribution", "space", "kind"), CASES)
def test_steps_and_rollouts_give_the_same_numbers(
    distribution: ActionDistribution, space: gymnasium.Space[Any], kind: str
) -> None:
    params = _params(distribution, 12)
    action = distribution.sample(params)
    step = distribution.log_prob_and_entropy(params, action)
    rollout = distribution.log_prob_and_entropy(
        params.unflatten(0, (3, 4)), action.unflatten(0, (3, 4))
    )
    for one, many in zip(step, rollout, strict=True):
        torch.testing.assert_close(many.flatten(), one)


@pytest.mark.parametrize(("distribution", "space", "kind"), CASES)
def test_the_terms_of_a_loss_are_what_they_are_one_by_one(
    distribution: ActionDistribution, space: gymnasium.Space[Any], kind: str
) -> None:
    params = _params(distribution, 12).requires_grad_()
    action = distribution.sample(params.detach())
    mean = distribution.mean_log_prob(params)
    expected = *distribution.log_prob_and_entropy(params, action), mean
    found = distribution.loss_terms(params, action, True)
    assert distribution.loss_terms(params, action, False)[2] is None
    assert (found[2] is None) == (mean is None)
    for one, other in zip(found, expected, strict=True):
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("distribution", "space", "kind"), CASES)
def test_the_entropy_is_the_mean_of_minus_the_log_probability(
    distribution: ActionDistribution, space: gymnasium.Space[Any], kind: str
) -> None:
    if kind in WITHOUT_ENTROPY_CHECK:
        return
    params = _params(distribution, 1).expand(40_000, -1)
    action = distribution.sample(params, torch.Generator().manual_seed(0))
    log_prob, entropy = distribution.log_prob_and_entropy(params, action)
    error = 5 * log_prob.std() / 200
    assert abs(float(log_prob.mean() + entropy[0])) < float(error) + 1e-4


@pytest.mark.parametrize(("distribution", "space", "kind"), CASES)
def test_gradients_of_log_probability_and_entropy_are_those_of_differences(
    distribution: ActionDistribution, space: gymnasium.Space[Any], kind: str
) -> None:
    distribution = distribution.double()
    params = _params(distribution, 3).double().requires_grad_()
    with torch.no_grad():
        action = distribution.sample(params)
    try:
        assert torch.autograd.gradcheck(
            lambda p: distribution.log_prob_and_entropy(p, action), (params,)
        )
    finally:
        distribution.float()


@pytest.mark.parametrize("kind", list(DISTRIBUTIONS.classes))
def test_every_kind_is_tried_here(kind: str) -> None:
    assert any(_made(kind, space) for space in SPACES.values()), "SPACES lacks one that fits it"


@pytest.mark.parametrize("kind", list(DISTRIBUTIONS.classes))
def test_a_kind_that_fits_no_part_of_the_space_is_refused(kind: str) -> None:
    config = PolicyConfig(action_distribution=DistributionConfig(kind=kind))
    for space in SPACES.values():
        if _made(kind, space) is None:
            with pytest.raises(ValueError, match=rf"kind={kind}: no part of the action space"):
                make_distribution(space, config)
            both = spaces.Tuple([space, *[s for s in SPACES.values() if _made(kind, s)][:1]])
            make_distribution(both, config)


@pytest.mark.parametrize(
    ("option", "value"), [("bounds", "tanh"), ("std", "state"), ("initial_log_std", -1.0)]
)
def test_a_gaussian_option_on_a_space_without_numbers_is_refused(
    option: str, value: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    message = f"policy.action_distribution.{option}={value!r}: an option of Gaussian actions"
    with pytest.raises(ValueError, match=message):
        RecurrentPPO("CartPole-v1", policy={"action_distribution": {option: value}})
    old = {"bounds": "action-bounds", "std": "action-std"}.get(option, "initial-log-std")
    for flag in (f"--policy.action-distribution.{option.replace('_', '-')}", f"--policy.{old}"):
        run = tmp_path / "run"
        words = ["--env.id", "CartPole-v1", f"{flag}={value}", "--run-dir", str(run)]
        assert main(["train", *words]) == 2
        assert message in capsys.readouterr().err
        assert not run.exists()


@pytest.mark.parametrize(("std", "start"), [("free", -0.7), ("state", -0.7), ("gsde", 0.0)])
def test_noise_starts_wider_where_a_reward_has_to_be_found(std: str, start: float) -> None:
    for given, found in (({}, start), ({"initial_log_std": -1.5}, -1.5)):
        options: Any = DistributionConfig(std=std, **given)
        assert options.start_log_std == found
        agent: Any = make_distribution(SPACES["Box"], PolicyConfig(action_distribution=options))
        assert agent.initial_log_std == found


@pytest.mark.parametrize("std", ["free", "state"])
def test_deviations_start_where_asked_inside_a_tuple_too(std: str) -> None:
    options = DistributionConfig(std=std, initial_log_std=-0.7)
    space = spaces.Tuple([SPACES["Box without bounds"], SPACES["Discrete"], SPACES["Box"]])
    for one in (SPACES["Box"], space):
        agent = make_distribution(one, PolicyConfig(action_distribution=options))
        assert agent.initial_free().tolist() == pytest.approx([-0.7] * agent.num_free)
        params = torch.cat([torch.zeros(agent.num_outputs), agent.initial_free()])[None]
        numbers = 2 if one is SPACES["Box"] else 5
        choices = 0.0 if one is SPACES["Box"] else np.log(4)
        entropy = agent.log_prob_and_entropy(params, agent.mode(params))[1]
        expected = numbers * (0.5 * np.log(2 * np.pi * np.e) - 0.7) + choices
        assert float(entropy) == pytest.approx(expected, rel=1e-5)


def test_the_old_names_of_the_gaussian_options_mean_the_new_ones() -> None:
    flags = ["--policy.action-std", "state", "--policy.action-bounds", "tanh"]
    new = parse_config(TrainConfig, [*flags, "--policy.initial-log-std", "-0.5"]).policy
    options = DistributionConfig(bounds="tanh", std="state", initial_log_std=-0.5)
    assert new == PolicyConfig(action_distribution=options)
    assert new == PolicyConfig(action_std="state", action_bounds="tanh", initial_log_std=-0.5)  # type: ignore[call-arg]
    assert (new.action_bounds, new.action_std, new.initial_log_std) == ("tanh", "state", -0.5)  # type: ignore[attr-defined]
    assert config_from_dict(PolicyConfig, {"action_bounds": "tanh"}) == PolicyConfig(
        action_distribution=DistributionConfig(bounds="tanh")
    )
    assert config_from_dict(PolicyConfig, config_to_dict(new)) == new


MODULE = """
from dataclasses import dataclass

import torch
from gymnasium import spaces

from xlstm_rl.options.fields import Positive
from xlstm_rl.policy.actions.base import ActionDistribution
from xlstm_rl.policy.config import DistributionConfig


@dataclass(frozen=True)
class LaplaceConfig(DistributionConfig):
    kind: str = "foreign_distribution:Laplace"
    scale: Positive = 1.0


class Laplace(ActionDistribution):
    config_class = LaplaceConfig
    action_dtype = torch.float32

    @classmethod
    def for_space(cls, space, options):
        return cls(space, options.scale) if isinstance(space, spaces.Box) else None

    def __init__(self, space, scale):
        super().__init__()
        self.scale = scale
        self.num_params = self.num_features = space.shape[0]
        self.action_shape = space.shape
        self.low, self.high = map(torch.from_numpy, (space.low, space.high))

    def sample(self, params, generator=None):
        u = torch.rand(params.shape, generator=generator) - 0.5
        return params - self.scale * u.sign() * torch.log1p(-2 * u.abs())

    def mode(self, params):
        return params

    def log_prob_and_entropy(self, params, action):
        log_2b = torch.tensor(2 * self.scale).log()
        log_prob = -(action - params).abs() / self.scale - log_2b
        return log_prob.sum(-1), (1 + log_2b).expand(params.shape).sum(-1)

    def to_env(self, action):
        return action.clamp(self.low, self.high)

    def features(self, action):
        return action
"""


def test_a_distribution_of_another_module_trains_is_saved_and_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign_distribution.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    agent = RecurrentPPO(
        "Pendulum-v1",
        env={"num_envs": 4},
        agent={"rollout_steps": 8},
        memory={"kind": "gru", "width": 8},
        policy={"action_distribution": {"kind": "foreign_distribution:Laplace", "scale": 0.5}},
        logger={"kind": "none"},
    )
    agent.learn(64)
    agent.save(tmp_path / "run")
    agent.close()
    policy = load_policy(tmp_path / "run")
    assert policy.network.distribution.scale == 0.5
    assert type(policy.network.distribution) is sys.modules["foreign_distribution"].Laplace
    word = {"action_distribution": "foreign_distribution:Laplace"}
    assert (
        config_from_dict(PolicyConfig, word).action_distribution.kind == word["action_distribution"]
    )
