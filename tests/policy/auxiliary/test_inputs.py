"""What the memory reads beside the observation: right at episode starts, the same in training."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.collection.collector import Collector
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import GraphActor, Policy, PolicyConfig
from xlstm_rl.policy.auxiliary.inputs import (
    FIRST_STEP,
    OBSERVATION,
    PREVIOUS_ACTION,
    PREVIOUS_REWARD,
)

MODES = list(AutoresetMode)
ALL = {"previous_action": True, "previous_reward": True, "first_step": True}
BOX = gymnasium.spaces.Box(-1e6, 1e6, (2,), np.float32)


def _policy(action: Any = None, memory: str = "ms", **switches: Any) -> Policy:
    policy = Policy(
        BOX,
        action or gymnasium.spaces.Discrete(2),
        MemoryConfig(pattern=memory, width=16, num_heads=2),
        PolicyConfig(head_width=16, **{**ALL, **switches}),
        NormalizationConfig(),
    )
    with torch.no_grad():
        for weight in policy.network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    policy.normalizer.update(torch.rand(50, 2) * 5)
    policy.auxiliary.update(torch.rand(50) * 4)
    return policy


def _collect(env: Any, policy: Policy, steps: int, rollouts: int = 1) -> Any:
    collector = Collector(env, policy, steps, steps, 0, torch.Generator().manual_seed(0))
    return [collector.collect() for _ in range(rollouts)]


@pytest.mark.parametrize("mode", MODES)
def test_every_step_reads_the_step_before_and_an_episode_starts_from_zeros(
    countdown_vector: Callable[[AutoresetMode], SyncVectorEnv], mode: AutoresetMode
) -> None:
    policy = _policy()
    scale = float(policy.auxiliary.scale)
    first, second = _collect(countdown_vector(mode), policy, 15, rollouts=2)
    data = torch.cat((first.data, second.data), 1)  # the border between them is no border here
    x, valid = data["observation"], data["valid"]
    reset = data["reset"]
    codes = torch.nn.functional.one_hot(data["action"], 2).float()
    before = torch.cat((torch.zeros(3, 1, 2), codes[:, :-1]), 1).masked_fill(
        reset.unsqueeze(-1), 0.0
    )
    torch.testing.assert_close(x[PREVIOUS_ACTION][valid], before[valid])
    paid = torch.cat((torch.zeros(3, 1), data["reward"][:, :-1]), 1).masked_fill(reset, 0.0)
    torch.testing.assert_close(x[PREVIOUS_REWARD].squeeze(-1)[valid], (paid * scale)[valid])
    torch.testing.assert_close(x[FIRST_STEP].squeeze(-1)[valid], reset.float()[valid])
    assert reset.sum() > 8 and paid.max() > 3


@pytest.mark.parametrize("mode", MODES)
def test_a_truncated_step_bootstraps_with_its_last_action_and_reward(
    countdown_vector: Callable[[AutoresetMode], SyncVectorEnv], mode: AutoresetMode
) -> None:
    policy = _policy()
    (rollout,) = _collect(countdown_vector(mode), policy, 30)
    data, context = rollout.data, policy.auxiliary
    checked = 0
    for row, t in data["truncated"].nonzero().tolist():
        start = int(data["reset"][row, : t + 1].nonzero()[-1])
        inside = data[row, start : t + 1]
        episode = float(data["reset"][row, : t + 1].sum() - 1)
        final = policy.normalizer(torch.tensor([[episode, float(t - start + 1)]]))
        own = (context._features(inside["action"][-1:]), torch.ones(1, 1))
        last = context.join(final, own, None, inside["reward"][-1:], None)
        seen = {
            key: torch.cat((inside["observation"][key], last[key])).unsqueeze(0) for key in last
        }
        with torch.no_grad():
            _, value, _ = policy.network(seen, policy.network.initial_tensors(1), None)
        torch.testing.assert_close(data["next_value"][row, t], value[0, -1], rtol=1e-4, atol=1e-5)
        checked += 1
    assert checked >= 5


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("action", [None, gymnasium.spaces.Box(-2, 2, (1,))], ids=["n", "box"])
def test_acting_step_by_step_equals_the_sequence(action: Any, critic: str) -> None:
    policy = _policy(action, critic=critic)
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(9, 2, 2)).astype(np.float32)
    reward = rng.normal(size=(9, 2)).astype(np.float32)
    reset = np.zeros((9, 2), dtype=bool)
    reset[0] = reset[4, 1] = reset[7] = True
    state, params, inputs = None, [], []
    network, decide = policy.network, policy.network.action_step

    def spy(x: Any, tensors: Any, *rest: Any) -> Any:
        inputs.append(x)
        out = decide(x, tensors, *rest)
        params.append(out[0])
        return out

    network.action_step = spy  # type: ignore[method-assign]
    for t in range(9):
        # what stands at a reset is the business of the episode before
        _, state = policy.act(obs[t], state, reset[t], reward=None if t == 0 else reward[t])
    stacked = {key: torch.stack([x[key] for x in inputs], 1) for key in inputs[0]}
    flags = torch.from_numpy(reset.T.copy())
    with torch.no_grad():
        whole, _, _ = network(stacked, network.initial_tensors(2), flags)
    torch.testing.assert_close(torch.stack(params, 1), whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(stacked[FIRST_STEP].squeeze(-1).bool(), flags)
    assert not stacked[PREVIOUS_ACTION][flags].any() and not stacked[PREVIOUS_REWARD][flags].any()


def test_actors_carry_the_last_action_and_ask_for_the_reward() -> None:
    policy = _policy(gymnasium.spaces.Box(-2, 2, (1,)))
    rng, state = np.random.default_rng(0), None
    plain, graph = policy.actor(2), GraphActor(policy, 2, True, graph=_Rerun())
    for t in range(8):
        obs, reward = rng.normal(size=(2, 2)).astype(np.float32), rng.normal(size=2)
        reset = np.array([t == 5, t == 3])
        action, state = policy.act(obs, state, reset, reward=reward)
        np.testing.assert_array_equal(plain(obs, reset, reward), action)
        np.testing.assert_allclose(graph(obs, reset, reward), action, atol=1e-6)
    assert set(plain.state.keys()) == {"previous", "memory"}
    assert state is not None
    assert (plain.state["previous"] == state["previous"]).all()
    assert state["previous", "action"].any() and bool(state["previous", "started"].all())
    other = policy.actor(2)
    other.state = plain.state
    obs = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(other(obs, reward=[1.0, 2.0]), plain(obs, reward=[1.0, 2.0]))


class _Rerun:
    def capture(self, run: Callable[[], Any]) -> Any:
        for _ in range(3):
            self._out = run()
        self._run = run
        return self._out

    def replay(self) -> None:
        self._out.copy_(self._run())


def test_a_forgotten_reward_is_an_error_except_where_an_episode_begins() -> None:
    policy, obs = _policy(), np.zeros((2, 2), np.float32)
    _, state = policy.act(obs)
    policy.act(obs, state, reset=True)
    for act in (lambda: policy.act(obs, state), lambda: policy.act(obs, state, [True, False])):
        with pytest.raises(ValueError, match="reads the previous reward: pass reward="):
            act()
    actor = policy.actor(2)
    actor(obs)
    actor(obs, reset=True)
    with pytest.raises(ValueError, match="pass reward="):
        actor(obs)
    with pytest.raises(ValueError, match=r"reward has shape \[3\], expected \[2\]"):
        actor(obs, reward=np.zeros(3))


def test_an_actor_of_one_environment_takes_one_reward() -> None:
    policy = _policy()
    actor, obs = policy.actor(), np.zeros(2, np.float32)
    actor(obs, reset=True)
    actor(obs, reward=1.0)


def test_only_what_is_switched_on_is_there() -> None:
    plain = _policy(previous_action=False, previous_reward=False, first_step=False)
    assert not plain.auxiliary.is_active and not plain.auxiliary.state_shapes
    assert not [key for key in plain.state_dict() if key.startswith("context")]
    flag = _policy(previous_action=False, previous_reward=False)
    assert flag.auxiliary.sizes == {FIRST_STEP: 1}
    x = flag.auxiliary.join(torch.zeros(1, 2), (torch.zeros(1, 1),), None, None, None)
    assert set(x) == {OBSERVATION, FIRST_STEP} and x[FIRST_STEP].item() == 1.0


def test_rewards_are_scaled_by_their_running_size_without_a_shift() -> None:
    context = _policy(previous_reward=True).auxiliary
    rewards = torch.tensor([3.0, -4.0, 0.0])
    assert context.moments is not None
    context.moments.count.zero_()
    context.moments.mean.zero_()
    context.update(rewards)
    expected = 1.0 / np.sqrt((9 + 16) / 3)  # over the root of the mean square
    assert float(context.scale) == pytest.approx(expected)
    state = context.state_dict()
    other = _policy(previous_reward=True).auxiliary
    other.load_state_dict(state)
    assert torch.equal(other.scale, context.scale)


@pytest.mark.slow
def test_a_reward_seen_one_step_later_is_used() -> None:
    """A bandit: the memory must read which action was paid; without the inputs it is a coin."""

    class Lever(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(0, 1, (1,))
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.good, self.t = int(self.np_random.integers(2)), 0
            return np.zeros(1, np.float32), {}

        def step(self, action: Any) -> Any:
            self.t += 1
            paid = 1.0 if int(action) == self.good else -1.0
            return np.zeros(1, np.float32), paid, self.t == 6, False, {}

    agent = RecurrentPPO(
        Lever,
        env={"num_envs": 16},
        memory={"kind": "gru", "width": 16},
        policy={"head_width": 16, "previous_action": True, "previous_reward": True},
        agent={"rollout_steps": 24, "epochs": 6, "minibatches": 2, "learning_rate": 5e-3},
        logger={"kind": "none"},
    ).learn(9_000)
    # 6 less twice the one mistake that a first guess makes half of the time; a coin: 0
    assert evaluate(agent.policy, Lever, episodes=60, seed=3).mean > 3.5
