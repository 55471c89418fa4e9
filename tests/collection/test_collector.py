from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from xlstm_rl.collection.collector import Collector, Rollout
from xlstm_rl.envs import ParityVectorEnv
from xlstm_rl.errors import TrainingError
from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]
MEMORIES = [
    MemoryConfig(kind="xlstm", pattern="ms", width=16, num_heads=2),
    MemoryConfig(kind="gru", width=16),
]


def _policy(env: Any, memory: MemoryConfig, critic: str = "shared") -> Policy:
    policy = Policy(
        env.single_observation_space,
        env.single_action_space,
        memory,
        PolicyConfig(head_width=16, critic=critic),  # type: ignore[arg-type]
        NormalizationConfig(),
    )
    with torch.no_grad():  # far from the near-constant start, so that errors are seen
        for weight in policy.network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    policy.normalizer.update(torch.rand(50, 2) * 5)
    return policy


def _collector(
    env: Any, policy: Policy, steps: int = 12, segment_steps: int | None = None
) -> Collector:
    generator = torch.Generator().manual_seed(0)
    return Collector(env, policy, steps, segment_steps or steps, 0, generator)


def _recompute(policy: Policy, rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor]:
    data = rollout.data
    with torch.no_grad():
        params, value, _ = policy.network(
            data["observation"], rollout.segment_states[0], data["reset"]
        )
    log_prob, _ = policy.network.distribution.log_prob_and_entropy(params, data["action"])
    return log_prob, value


@pytest.mark.parametrize("memory", MEMORIES, ids=lambda config: config.kind)
@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("mode", MODES)
def test_what_acted_is_what_trains(
    countdown_vector: Callable[[AutoresetMode], SyncVectorEnv],
    mode: AutoresetMode,
    critic: str,
    memory: MemoryConfig,
) -> None:
    env = countdown_vector(mode)
    policy = _policy(env, memory, critic)
    collector = _collector(env, policy)
    for _ in range(3):  # the second and third start in the middle of episodes
        rollout = collector.collect()
        log_prob, value = _recompute(policy, rollout)
        torch.testing.assert_close(log_prob, rollout.data["log_prob"], rtol=0, atol=1e-5)
        torch.testing.assert_close(value, rollout.data["value"], rtol=1e-5, atol=1e-5)


def test_the_state_is_overwritten_from_step_to_step(
    countdown_vector: Callable[[AutoresetMode], SyncVectorEnv],
) -> None:
    env = countdown_vector(AutoresetMode.SAME_STEP)
    collector = _collector(env, _policy(env, MEMORIES[0]))
    places = [tensor.data_ptr() for tensor in collector._tensors]
    first = collector.collect().segment_states[0]
    kept = [tensor.clone() for tensor in first]
    collector.collect()
    assert ([tensor.data_ptr() for tensor in collector._tensors] == places) is LOADED
    torch.testing.assert_close(list(first), kept, rtol=0, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_what_acted_on_discrete_observations_is_what_trains(mode: AutoresetMode) -> None:
    env = ParityVectorEnv(3, autoreset_mode=mode, length=5)
    policy = _policy(env, MEMORIES[0])
    rollout = _collector(env, policy).collect()
    log_prob, _ = _recompute(policy, rollout)
    torch.testing.assert_close(log_prob, rollout.data["log_prob"], rtol=0, atol=1e-5)
    assert set(rollout.data["observation"].unique().tolist()) == {0, 1}


@pytest.mark.parametrize("segment_steps", [30, 5, 3])
@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("mode", MODES)
def test_a_truncated_step_bootstraps_from_its_own_episode(
    countdown_vector: Callable[[AutoresetMode], SyncVectorEnv],
    mode: AutoresetMode,
    critic: str,
    segment_steps: int,
) -> None:
    env = countdown_vector(mode)
    policy = _policy(env, MEMORIES[0], critic)
    data = _collector(env, policy, 30, segment_steps).collect().data
    checked = 0
    for row, t in data["truncated"].nonzero().tolist():
        start = int(data["reset"][row, : t + 1].nonzero()[-1])
        episode = data["observation"][row, start : t + 1]
        # Countdown's final observation is known: the same episode number, one step further.
        raw = torch.tensor([[row_episode(data, row, t), float(t - start + 1)]])
        seen = torch.cat((episode, policy.normalizer(raw))).unsqueeze(0)
        with torch.no_grad():
            _, value, _ = policy.network(seen, policy.network.initial_tensors(1), None)
        torch.testing.assert_close(data["next_value"][row, t], value[0, -1], rtol=1e-4, atol=1e-5)
        checked += 1
    assert checked >= 5


def row_episode(data: Any, row: int, t: int) -> float:
    """Return the number of the episode that holds step t: resets so far, less one."""
    return float(data["reset"][row, : t + 1].sum() - 1)


def test_within_an_episode_the_next_value_is_the_next_steps_value(
    countdown_vector: Callable[[AutoresetMode], SyncVectorEnv],
) -> None:
    env = countdown_vector(AutoresetMode.SAME_STEP)
    data = _collector(env, _policy(env, MEMORIES[1])).collect().data
    inside = ~(data["terminated"] | data["truncated"])[:, :-1]
    assert inside.any()
    assert torch.equal(data["next_value"][:, :-1][inside], data["value"][:, 1:][inside])


@pytest.mark.parametrize("seed", range(4))
def test_dead_steps_never_reach_a_live_step(
    countdown_vector: Callable[[AutoresetMode], SyncVectorEnv], seed: int
) -> None:
    torch.manual_seed(seed)
    env = countdown_vector(AutoresetMode.NEXT_STEP)
    policy = _policy(env, MEMORIES[0])
    rollout = _collector(env, policy, steps=30).collect()
    valid = rollout.data["valid"]
    assert (~valid).sum() >= 5
    before = _recompute(policy, rollout)
    rollout.data["observation"][~valid] = 1e3
    for a, b in zip(before, _recompute(policy, rollout), strict=True):
        assert torch.equal(a[valid], b[valid])


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_segments_start_from_the_state_that_acting_had_there(
    countdown_vector: Callable[[AutoresetMode], SyncVectorEnv], critic: str
) -> None:
    env = countdown_vector(AutoresetMode.SAME_STEP)
    policy = _policy(env, MEMORIES[0], critic)
    collector = _collector(env, policy, steps=12, segment_steps=4)
    collector.collect()
    rollout = collector.collect()
    assert len(rollout.segment_states) == 3
    whole = rollout.data
    for number, tensors in enumerate(rollout.segment_states):
        part = slice(4 * number, 4 * number + 4)
        with torch.no_grad():
            _, value, _ = policy.network(
                whole["observation"][:, part], tensors, whole["reset"][:, part]
            )
        torch.testing.assert_close(value, whole["value"][:, part], rtol=1e-5, atol=1e-5)


def test_episode_returns_and_lengths_are_those_of_the_environment(
    countdown_vector: Callable[[AutoresetMode], SyncVectorEnv],
) -> None:
    for mode in MODES:
        env = countdown_vector(mode)
        collector = _collector(env, _policy(env, MEMORIES[1]), steps=20)
        rollouts = [collector.collect(), collector.collect()]
        lengths = [n for r in rollouts for n in r.episode_lengths]
        returns = [g for r in rollouts for g in r.episode_returns]
        assert set(lengths) == {1, 2, 3, 4, 5, 7}
        assert returns == [n * (n + 1) / 2 for n in lengths]


def test_a_nan_reward_names_environment_and_step() -> None:
    class Broken(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            observation, reward, *rest = super().step(actions)
            reward = np.where(np.arange(3) == 1, np.nan, reward)
            return (observation, reward, *rest)

    env = Broken([lambda: _cartpole() for _ in range(3)], autoreset_mode=AutoresetMode.SAME_STEP)
    policy = _policy_of_cartpole(env)
    with pytest.raises(TrainingError, match=r"non-finite reward in environment 1 at step 0"):
        _collector(env, policy).collect()


class Huge(gymnasium.Env[Any, Any]):
    """Its third observation or reward is finite, and beyond float32."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, what: str) -> None:
        self.what = what

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return np.zeros(2), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        huge = 1e300 if self.t == 3 else 0.0
        seen = np.full(2, huge if self.what == "observation" else 0.0)
        over = self.t == 3 if self.what == "final" else False
        seen = np.full(2, 1e300) if over else seen
        return seen, (huge if self.what == "reward" else 0.0), False, over, {}


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("observation", "non-finite observation in environment 0 at step 3.*beyond float32"),
        ("final", "non-finite observation in environment 0 at step 3.*beyond float32"),
        ("reward", "non-finite reward in environment 0 at step 2.*beyond float32"),
    ],
)
def test_a_number_that_is_finite_but_beyond_float32_is_named(
    what: str, message: str, normalized: bool
) -> None:
    env = SyncVectorEnv([lambda: Huge(what)], autoreset_mode=AutoresetMode.SAME_STEP)
    policy = Policy(
        env.single_observation_space,
        env.single_action_space,
        MEMORIES[1],
        PolicyConfig(),
        NormalizationConfig(observation=normalized),
    )
    with pytest.raises(TrainingError, match=message):
        _collector(env, policy).collect()


def _cartpole() -> Any:
    return gymnasium.make("CartPole-v1")


def _policy_of_cartpole(env: Any) -> Policy:
    return Policy(
        env.single_observation_space,
        env.single_action_space,
        MEMORIES[1],
        PolicyConfig(),
        NormalizationConfig(),
    )
