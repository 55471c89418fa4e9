"""gSDE: noise that is a function of the features and stays; the density is that of the action."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Normal

from xlstm_rl import RecurrentPPO
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig
from xlstm_rl.policy.exploration import StateDependentNoise

D, A = 8, 2
GSDE = {"action_distribution": {"std": "gsde"}}


def a_noise() -> StateDependentNoise:
    torch.manual_seed(0)
    made = StateDependentNoise(D, A, -0.5).double()
    with torch.no_grad():
        made.log_sigma.add_(0.3 * torch.randn(D, A))
    return made


def an_agent(steps: int = 4, **agent: Any) -> RecurrentPPO:
    return RecurrentPPO(
        "Pendulum-v1",
        env={"num_envs": 2},
        memory={"width": 16, "num_heads": 2},
        policy={"action_distribution": {"std": "gsde", "resample_steps": steps}},
        agent={"rollout_steps": 12, "epochs": 1, "minibatches": 1, **agent},
        logger="none",
    )


def test_noise_has_the_variance_that_the_density_says() -> None:
    noise = a_noise()
    features = torch.randn(1, D, dtype=torch.float64)
    drawn = noise.draw(200_000, torch.Generator().manual_seed(1))
    samples = noise.noise(features.expand(200_000, -1), drawn)
    # W_ij ~ N(0, sigma_ij^2): f W is normal with variance sum_i f_i^2 sigma_ij^2
    expected = (features[0].square()[:, None] / D * noise.log_sigma.exp().square()).sum(0).sqrt()
    torch.testing.assert_close(noise.log_std(features)[0].exp(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(samples.std(0), expected, rtol=1e-2, atol=0)
    assert (samples.mean(0).abs() < 5 * expected / 200_000**0.5).all()


def test_features_of_usual_size_start_at_the_initial_deviation() -> None:
    noise = StateDependentNoise(D, A, -0.5)
    features = torch.nn.functional.layer_norm(torch.randn(5, D), (D,))
    torch.testing.assert_close(noise.log_std(features), torch.full((5, A), -0.5), atol=1e-4, rtol=0)


def test_the_same_features_get_the_same_noise_until_it_is_drawn_anew() -> None:
    noise, features = a_noise(), torch.randn(3, D, dtype=torch.float64)
    first, second = noise.draw(3), noise.draw(3)
    assert torch.equal(noise.noise(features, first), noise.noise(features, first))
    assert (noise.noise(features, first) - noise.noise(features, second)).abs().min() > 1e-6


def test_the_loss_takes_the_density_of_the_sampled_actions_and_teaches_the_noise() -> None:
    with an_agent() as agent:
        agent.learn(24)
        rollout = agent._collector.collect()
        network = agent.policy.network
        params, _, _ = network(
            rollout.data["observation"], rollout.segment_states[0], rollout.data["reset"]
        )
        action = rollout.data["action"]
        log_prob, _ = network.distribution.log_prob_and_entropy(params, action)
        mean, log_std = params.unbind(-1)
        expected = Normal(mean, log_std.exp()).log_prob(action[..., 0])
        torch.testing.assert_close(log_prob, expected)
        torch.testing.assert_close(log_prob, rollout.data["log_prob"], atol=1e-5, rtol=1e-5)
        log_prob.sum().backward()
        assert network.exploration.log_sigma.grad.abs().min() > 0


@pytest.mark.parametrize(("steps", "draws"), [(4, 3), (5, 3), (1, 12), (0, 1), (12, 1)])
def test_the_function_is_drawn_every_so_many_steps(steps: int, draws: int) -> None:
    with an_agent(steps) as agent:
        agent.learn(24)
        exploration, count = agent.policy.network.exploration, 0
        original = exploration.draw

        def counted(*args: Any) -> torch.Tensor:
            nonlocal count
            count += 1
            return original(*args)

        exploration.draw = counted
        agent._collector.collect()
        assert count == draws


def test_a_resumed_run_draws_the_same_noise(tmp_path: Any) -> None:
    with an_agent() as agent:
        agent.learn(48)
        agent.save(tmp_path / "run")
        agent.learn(48)
        expected = copy.deepcopy(agent.policy.state_dict())
    with RecurrentPPO.load(tmp_path / "run", run_dir=str(tmp_path / "more")) as again:
        again.learn(48)
        for name, value in again.policy.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_segments_start_where_they_like() -> None:
    with an_agent(segment_steps=4) as agent:
        agent.learn(96)
        assert torch.isfinite(agent.policy.network.exploration.log_sigma).all()


def test_a_policy_acts_with_single_samples_of_the_same_density() -> None:
    policy = Policy(
        spaces.Box(-1, 1, (3,)),
        spaces.Box(-2, 2, (1,)),
        MemoryConfig(width=16, num_heads=2),
        PolicyConfig(**GSDE),
        NormalizationConfig(observation=False),
    )
    obs = np.ones((2_000, 3), np.float32)
    mode, _ = policy.act(obs)
    sampled, _ = policy.act(obs, deterministic=False, generator=torch.Generator().manual_seed(0))
    assert np.ptp(mode) == 0 and sampled.std() > 0.3


def test_options_that_do_not_fit_are_refused() -> None:
    box = spaces.Box(-2, 2, (1,))
    arguments = (MemoryConfig(width=8), PolicyConfig(**GSDE), NormalizationConfig())
    with pytest.raises(ValueError, match="std=gsde: expected a single Box"):
        Policy(box, spaces.Tuple([box, box]), *arguments)
    with pytest.raises(ValueError, match="no part of the action space is a Box"):
        Policy(box, spaces.Discrete(2), *arguments)
    with pytest.raises(ValueError, match=r"resample_steps=8: an option of .*gsde, but .*free"):
        PolicyConfig(action_distribution={"resample_steps": 8})
