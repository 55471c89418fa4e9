"""Policies in other precisions: cast, made under another default dtype, trained, saved, loaded."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl import RecurrentA2C, RecurrentPPO, evaluate, load_policy
from xlstm_rl.envs.spaces.leaves import map_leaves
from xlstm_rl.memory.config import MEMORIES
from xlstm_rl.policy import Policy

Make = Callable[..., Policy]
KINDS = list(MEMORIES.classes)
AUXILIARY = {"previous_action": True, "previous_reward": True, "first_step": True}
OBSERVATION = spaces.Dict(
    eye=spaces.Box(0, 255, (8, 8, 3), np.uint8),
    far=spaces.Box(0, 255, (40, 36), np.uint8),
    pose=spaces.Box(-1e6, 1e6, (3,), np.float64),
    near=spaces.Box(-9, 9, (2,), np.float32),
    room=spaces.Discrete(3, start=1),
    keys=spaces.MultiDiscrete([2, 3], start=[1, 0]),
    bits=spaces.MultiBinary(2),
)
ACTION = spaces.Dict(
    arm=spaces.Box(np.array([-0.1, 0.3]), np.array([0.7, 1000.1]), dtype=np.float64),
    gear=spaces.Discrete(3, start=1),
    hand=spaces.MultiDiscrete([2, 3]),
)
CASTS: dict[str, Callable[[Policy], Policy]] = {
    "double": lambda policy: policy.double(),
    "half": lambda policy: policy.half(),
    "bfloat16": lambda policy: policy.bfloat16(),
    "to": lambda policy: policy.to(torch.float64),
}


@pytest.fixture
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def _observations(space: Any, steps: int) -> list[Any]:
    space.seed(0)
    return [
        map_leaves(lambda x: np.stack([x, x]), space.sample())
        if isinstance(space, spaces.Dict)
        else np.stack([space.sample(), space.sample()])
        for _ in range(steps)
    ]


def _dtypes(policy: Policy) -> set[torch.dtype]:
    return {weight.dtype for weight in policy.network.parameters()}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.each_value
def test_a_cast_policy_acts_in_every_way(make_policy: Make, kind: str, cast: str) -> None:
    policy = make_policy(OBSERVATION, ACTION, kind=kind, config=AUXILIARY)
    state = None
    plain, all_obs = copy.deepcopy(policy), _observations(OBSERVATION, 6)
    policy = CASTS[cast](policy)
    actor, actions, expected, plain_state = policy.actor(2), [], [], None
    for t, obs in enumerate(all_obs):
        reset, reward = np.array([t == 3, t == 0]), np.full(2, 0.1 * t)
        action, state = policy.act(obs, state, reset, reward=reward)
        again = actor(obs, reset, reward=reward)
        for key in ACTION:
            np.testing.assert_array_equal(again[key], action[key])
        actions.append(action["arm"])
        found, plain_state = plain.act(obs, plain_state, reset, reward=reward)
        expected.append(found["arm"])
        sampled, _ = policy.act(obs, state, deterministic=False, reward=reward)
        assert ACTION.contains(map_leaves(lambda x: x[0], sampled))
    # bfloat16 has 8 bits
    tolerance = {"bfloat16": 0.2, "half": 0.03}.get(cast, 1e-5)
    scale = np.array([0.4, 500.0])
    np.testing.assert_allclose(
        np.array(actions) / scale, np.array(expected) / scale, atol=tolerance
    )


@pytest.mark.parametrize("cast", ["half", "bfloat16"])
def test_statistics_and_bounds_survive_a_cast_and_its_way_back(
    make_policy: Make, cast: str
) -> None:
    space = spaces.Box(-1e6, 1e6, (3,), np.float32)
    policy = make_policy(space, spaces.Box(0.1, 1000.1, (1,), np.float32), config=AUXILIARY)
    policy.normalizer.update(torch.randn(1000, 3) * 3 + 123456.0)
    policy.auxiliary.update(torch.randn(1000) * 1e6)
    before = {name: x.clone() for name, x in policy.state_dict().items() if "moments" in name}
    x, u = torch.full((1, 3), 123457.0), torch.tensor([[0.3]])
    expected = policy.normalizer(x), policy.network.distribution.to_env(u)
    policy = CASTS[cast](policy)
    assert policy.normalizer(x).dtype == policy.dtype
    torch.testing.assert_close(policy.normalizer(x).float(), expected[0], atol=0.01, rtol=0.01)
    policy.float()
    for name, value in policy.state_dict().items():
        if "moments" in name:
            assert value.dtype == torch.float64 and torch.equal(value, before[name])
    assert torch.equal(policy.normalizer(x), expected[0])
    assert torch.equal(policy.network.distribution.to_env(u), expected[1])


def test_a_double_policy_computes_in_double(make_policy: Make) -> None:
    policy, obs = make_policy(OBSERVATION, config=AUXILIARY).double(), None
    seen: set[torch.dtype] = set()

    def watch(module: Any, inputs: Any, output: Any) -> None:
        seen.update(x.dtype for x in (*inputs, output) if isinstance(x, torch.Tensor))

    for module in policy.network.modules():
        if not list(module.children()):
            module.register_forward_hook(watch)
    obs = _observations(OBSERVATION, 1)[0]
    _, state = policy.act(obs, reset=True)
    assert {x.dtype for x in state.values(True, True)} == {torch.float64}
    assert seen <= {torch.float64, torch.int64} and torch.float64 in seen


def test_a_state_of_another_precision_is_taken(make_policy: Make) -> None:
    for kind in KINDS:
        policy = make_policy(kind=kind, config={"previous_action": True})
        obs = np.ones((2, 3), np.float32)
        _, state = policy.act(obs)
        expected, _ = policy.act(obs, state)
        found, after = policy.act(obs, state.double())
        np.testing.assert_array_equal(found, expected)
        assert {x.dtype for x in after.values(True, True)} == {torch.float32}
        found, _ = policy.double().act(obs, state)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_actor_follows_a_policy_that_is_cast(make_policy: Make, kind: str) -> None:
    policy, obs = make_policy(kind=kind), np.ones((2, 3), np.float32)
    actor, other = policy.actor(2), copy.deepcopy(policy).actor(2)
    for _ in range(3):
        actor(obs)
        other(obs)
    policy.double()
    for _ in range(3):
        np.testing.assert_allclose(actor(obs), other(obs), atol=1e-5)


SECTIONS: dict[str, Any] = {
    "env": {"num_envs": 2, "max_episode_steps": 7},
    "memory": {"pattern": "ms", "width": 16, "num_heads": 2},
    "policy": {"head_width": 8, **AUXILIARY},
    "logger": {"kind": "none"},
}
SMALL = {"ppo": {"epochs": 2, "minibatches": 1, "segment_steps": 8}, "a2c": {}}


@pytest.mark.parametrize("autoreset", ["next_step", "same_step", "disabled"])
@pytest.mark.parametrize("make", [RecurrentPPO, RecurrentA2C])
@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
@pytest.mark.each_value
def test_with_double_as_the_default_all_of_training_is_double(
    double_by_default: None, tmp_path: Path, make: Any, env: str, autoreset: str
) -> None:
    agent = make(
        env,
        **{**SECTIONS, "env": {**SECTIONS["env"], "autoreset": autoreset}},
        agent={"rollout_steps": 16, **SMALL[make.algo]},
    )
    rollouts: list[Any] = []
    update = agent.update
    agent.update = lambda rollout, progress: rollouts.append(rollout) or update(rollout, progress)
    agent.learn(64)
    assert len(rollouts) == 2 and _dtypes(agent.policy) == {torch.float64}
    for rollout in rollouts:
        for name, column in rollout.data.items(True, True):
            if torch.is_floating_point(column):
                assert column.dtype == torch.float64, name
        assert {x.dtype for state in rollout.segment_states for x in state} == {torch.float64}
    loaded = load_policy(agent.save(tmp_path / "run"))
    assert _dtypes(loaded) == {torch.float64}
    result = evaluate(agent.policy, episodes=2)
    assert evaluate(loaded, episodes=2) == result
    torch.set_default_dtype(torch.float32)  # a file says its precision itself
    loaded = load_policy(tmp_path / "run")
    assert _dtypes(loaded) == {torch.float64}
    assert evaluate(loaded, episodes=2) == result


@pytest.mark.parametrize("cast", CASTS)
def test_a_saved_policy_is_loaded_in_its_precision(
    make_policy: Make, cast: str, tmp_path: Path
) -> None:
    from xlstm_rl.runs.checkpoint import write_checkpoint
    from xlstm_rl.runs.folder import create_run_folder, new_checkpoint

    policy = CASTS[cast](make_policy(OBSERVATION, ACTION, config=AUXILIARY))
    folder = create_run_folder(tmp_path / "run", {}, env="none", memory="xlstm", seed=0)
    with new_checkpoint(folder, 0, 1) as path:
        write_checkpoint(path, policy, {})
    loaded = load_policy(folder)
    assert _dtypes(loaded) == {policy.dtype}
    for obs in _observations(OBSERVATION, 2):
        ours, theirs = policy.act(obs, reset=True)[0], loaded.act(obs, reset=True)[0]
        for key in ACTION:
            np.testing.assert_array_equal(ours[key], theirs[key])


def test_a_double_agent_trains_after_a_cast(tmp_path: Path) -> None:
    agent = RecurrentPPO("Pendulum-v1", **SECTIONS, agent={"rollout_steps": 16, **SMALL["ppo"]})
    agent.policy.double()
    agent.learn(64)
    assert _dtypes(agent.policy) == {torch.float64}
    assert _dtypes(load_policy(agent.save(tmp_path / "run"))) == {torch.float64}


BOX = spaces.Box(np.array([-0.1, 0.3]), np.array([0.7, 1000.1]), dtype=np.float64)


@pytest.mark.parametrize("bounds", ["clip", "tanh"])
@pytest.mark.parametrize("space", [BOX, ACTION], ids=["Box", "Dict"])
def test_a_double_policy_evaluates_the_actions_that_it_took(
    make_policy: Make, space: Any, bounds: str
) -> None:
    narrow = {"action_bounds": bounds, "action_std": "free"}
    policy = make_policy(action=space, config=narrow).double()
    with torch.no_grad():
        policy.network.log_std.fill_(-14.0)  # float32 has not the digits for it
    obs = np.stack([policy.observation_space.sample() for _ in range(4)])
    action, _ = policy.act(obs, deterministic=False)
    with_time = map_leaves(lambda x: x[:, None], action)
    found = policy.evaluate_actions(obs[:, None], with_time)
    read = policy.read_sequences(obs[:, None], with_time)
    assert read.action.dtype == found.log_prob.dtype == torch.float64
    back = policy.network.distribution.to_env(read.action)
    for mine, theirs in zip(_leaves(back), _leaves(with_time), strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-14)
    params, _, _ = policy.network(read.observation, read.tensors, None)
    numbers = params[..., -4:] if space is BOX else _arm(policy, params)
    mean, log_std = numbers.chunk(2, -1)
    arm = read.action[..., :2]
    assert ((arm - mean) / log_std.exp()).abs().max() < 5  # as sampled: within 5 deviations


def _leaves(value: Any) -> list[Any]:
    return [value[key] for key in sorted(value)] if isinstance(value, dict) else [value]


def _arm(policy: Policy, params: torch.Tensor) -> torch.Tensor:
    return policy.network.distribution._params(params)[0]  # type: ignore[no-any-return,operator]


def test_an_action_near_a_bound_keeps_its_digits_in_double(make_policy: Make) -> None:
    policy = make_policy(
        action=spaces.Box(-1, 1, (3,), np.float64), config={"action_bounds": "tanh"}
    )
    unsquashed = torch.tensor([[0.5, 12.0, -15.0]], dtype=torch.float64)
    action = policy.double().network.distribution.to_env(unsquashed)
    found = policy.network.distribution.from_env(action)
    torch.testing.assert_close(found, unsquashed, rtol=1e-3, atol=0)
    at_bound = policy.network.distribution.from_env(torch.ones(1, 3, dtype=torch.float64))
    assert bool(at_bound.isfinite().all())


@pytest.mark.parametrize("cast", ["float", "half", "bfloat16"])
def test_other_policies_read_actions_as_float32(make_policy: Make, cast: str) -> None:
    policy = getattr(make_policy(action=BOX), cast)()
    low, high = torch.tensor(BOX.low), torch.tensor(BOX.high)
    action = low + (high - low) * torch.rand(64, 2, dtype=torch.float64)
    found = policy.network.distribution.from_env(action)
    expected = ((action - (low / 2 + high / 2)) / (high / 2 - low / 2)).float()
    assert found.dtype == torch.float32 and torch.equal(found, expected)
