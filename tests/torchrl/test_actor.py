"""Our policies in TorchRL's environments: the actions are those of `policy.act`."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torchrl.data import Binary, Composite
from torchrl.envs import (
    ActionMask,
    ExplorationType,
    GymWrapper,
    ParallelEnv,
    SerialEnv,
    TransformedEnv,
    set_exploration_type,
)
from torchrl.envs.libs.gym import default_info_dict_reader

from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

from .conftest import Collector, get_env_transforms_from_module, torchrl_014

BOX = spaces.Box(-5, 5, (3,), np.float32)
NESTED = spaces.Dict(
    {"near": BOX, "far": spaces.Dict({"deep": spaces.Box(0, 1, (2, 2), np.float64)})}
)
STATE, AFTER = "recurrent_state", ("next", "recurrent_state")


class Task(gymnasium.Env[Any, Any]):
    """Samples observations, pays what it drew, and ends after 4, 5, 6, 4, ... steps."""

    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation, action
        self.episode = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self.observation_space.sample(), {"action_mask": self._mask()}

    def _mask(self) -> Any:
        n = int(getattr(self.action_space, "n", 1))
        mask = self.np_random.random(n) < 0.4
        mask[self.np_random.integers(n)] = True
        return mask

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.t += 1
        reward = float(self.np_random.normal())
        ended = self.t == 4 + self.episode % 3
        obs = self.observation_space.sample()
        return obs, reward, ended, False, {"action_mask": self._mask()}


def _policy(observation: Any, action: Any, **options: Any) -> Policy:
    config = MemoryConfig(pattern="ms", width=8, num_heads=2, round_to=8)
    network = PolicyConfig(head_width=8, **options)
    policy = Policy(observation, action, config, network, NormalizationConfig())
    with torch.no_grad():
        for weight in policy.network.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return policy


def _env(actor: Any, policy: Policy, categorical: bool = False, mask: bool = False) -> Any:
    task = Task(policy.observation_space, policy.action_space)
    env = GymWrapper(task, categorical_action_encoding=categorical)
    if mask:
        spec = Composite(action_mask=Binary(n=int(policy.action_space.n), dtype=torch.bool))
        env.set_info_dict_reader(default_info_dict_reader(["action_mask"], spec=spec))
    return TransformedEnv(env, get_env_transforms_from_module(actor))


def _observe(space: Any, batch: TensorDict, t: int, key: Any = ()) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _observe(part, batch, t, (*key, name)) for name, part in space.items()}
    value = batch[key or "observation"][:, t]
    if isinstance(space, spaces.Discrete) and value.dim() == 2:
        return value.argmax(-1)
    return value


def _check(batch: TensorDict, policy: Policy, encode: Any, **given: str) -> None:
    """Run `policy.act` beside a rollout `[B, T]` with the deterministic actions."""
    state, init = None, batch["is_init"].squeeze(-1)
    assert init[:, 1:].any()
    for t in range(batch.shape[1]):
        extra = {name: batch[key][:, t] for name, key in given.items()}
        if "reward" in extra:
            extra["reward"] = extra["reward"].squeeze(-1)
        obs = _observe(policy.observation_space, batch, t)
        action, state = policy.act(obs, state, reset=init[:, t], **extra)
        torch.testing.assert_close(encode(action), batch["action"][:, t], rtol=1e-5, atol=1e-5)


def _one_hot(n: int) -> Any:
    return functools.partial(torch.nn.functional.one_hot, num_classes=n)


def _rollout(policy: Policy, actor: Any, **options: Any) -> TensorDict:
    env = SerialEnv(2, functools.partial(_env, actor, policy, **options))
    env.set_seed(0)
    policy.observation_space.seed(0)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        return env.rollout(20, actor, break_when_any_done=False)


@pytest.mark.parametrize("observation", [BOX, NESTED, spaces.Discrete(5)])
@pytest.mark.parametrize("categorical", [False, True])
def test_discrete_actions_are_those_of_act(observation: Any, categorical: bool) -> None:
    policy = _policy(observation, spaces.Discrete(4))
    if not isinstance(observation, spaces.Discrete):
        numbers = policy.normalizer.numbers(
            policy.normalizer.flatten(policy.reader.example(3, policy.device))
        )
        policy.normalizer.update(numbers)
    actor = policy.as_tensordict_module(categorical_action_encoding=categorical)
    batch = _rollout(policy, actor, categorical=categorical)
    _check(batch, policy, (lambda action: action) if categorical else _one_hot(4))


@pytest.mark.parametrize(
    ("nvec", "categorical"),
    [
        *(([3, 3], False), ([3, 3], True), ([2, 4, 3], True)),
        pytest.param([2, 4, 3], False, marks=torchrl_014("hands on the first choice alone")),
    ],
)
def test_several_choices_at_once(nvec: list[int], categorical: bool) -> None:
    policy = _policy(BOX, spaces.MultiDiscrete(nvec))
    actor = policy.as_tensordict_module(categorical_action_encoding=categorical)
    batch = _rollout(policy, actor, categorical=categorical)

    def encode(action: torch.Tensor) -> torch.Tensor:
        if categorical:
            return action
        parts = [_one_hot(n)(action[:, i]) for i, n in enumerate(nvec)]
        return torch.stack(parts, 1) if len(set(nvec)) == 1 else torch.cat(parts, 1)

    _check(batch, policy, encode)


def test_a_table_of_choices_goes_in_and_out_one_hot() -> None:
    space = spaces.MultiDiscrete([[3, 3], [3, 3]], start=[[1, 0], [2, 0]])
    policy = _policy(space, space)
    seen = torch.from_numpy(np.stack([space.sample() for _ in range(5)]))
    start = torch.from_numpy(space.start)
    actor = policy.as_tensordict_module(deterministic=True)
    with_indices = policy.as_tensordict_module(True, categorical_action_encoding=True)
    batch = TensorDict(
        {
            "observation": torch.nn.functional.one_hot(seen - start, 3),
            "recurrent_state": torch.zeros(5, actor.layout.size),
            "is_init": torch.ones(5, 1, dtype=torch.bool),
        },
        batch_size=[5],
    )
    found = actor(batch.clone())["action"]
    expected = with_indices(batch.set("observation", seen))["action"]
    assert found.shape == (5, 2, 2, 3) and torch.equal(found.argmax(-1), expected)


@pytest.mark.parametrize("action", [spaces.Box(-2, 2, (2,), np.float32), spaces.MultiBinary(3)])
def test_numbers_and_bits_are_those_of_act(action: Any) -> None:
    policy = _policy(BOX, action)
    batch = _rollout(policy, policy.as_tensordict_module())
    _check(batch, policy, lambda one: one)


def test_previous_action_and_reward_are_carried() -> None:
    policy = _policy(
        BOX, spaces.Discrete(4), previous_action=True, previous_reward=True, first_step=True
    )
    batch = _rollout(policy, policy.as_tensordict_module())
    carried = ~batch["is_init"][:, 1:]
    torch.testing.assert_close(
        batch["previous_reward"][:, 1:][carried], batch["next", "reward"][:, :-1][carried]
    )
    _check(batch, policy, _one_hot(4), reward="previous_reward")


def test_mask_of_the_environment_holds() -> None:
    policy = _policy(BOX, spaces.Discrete(6), action_mask="info")
    actor = policy.as_tensordict_module(deterministic=False)
    env = _env(actor, policy, mask=True)
    env.append_transform(ActionMask())
    batch = env.rollout(60, actor, break_when_any_done=False)
    assert (batch["action"].bool() & ~batch["action_mask"]).sum() == 0
    assert not batch["action_mask"].all()


def test_missing_mask_is_named() -> None:
    policy = _policy(BOX, spaces.Discrete(6), action_mask="info")
    actor = policy.as_tensordict_module()
    with pytest.raises(KeyError, match=r"'action_mask' is missing.*set_info_dict_reader"):
        _env(actor, policy).rollout(3, actor)


def test_exploration_type_decides_between_mode_and_sample() -> None:
    policy = _policy(BOX, spaces.Discrete(4))
    batch = TensorDict(
        {
            "observation": torch.randn(1, 3).expand(500, 3),
            STATE: torch.zeros(500, policy.as_tensordict_module().layout.size),
            "is_init": torch.ones(500, 1, dtype=torch.bool),
        },
        batch_size=[500],
    )
    counts = {}
    for name, kind in (("mode", ExplorationType.DETERMINISTIC), ("sample", ExplorationType.RANDOM)):
        with set_exploration_type(kind):
            counts[name] = policy.as_tensordict_module()(batch.clone())["action"].any(0).sum()
            forced = policy.as_tensordict_module(deterministic=True)(batch.clone())
            assert forced["action"].any(0).sum() == 1
    assert counts["mode"] == 1 and counts["sample"] > 1


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_any_number_of_batch_dims(shape: tuple[int, ...]) -> None:
    policy = _policy(BOX, spaces.Discrete(4))
    actor = policy.as_tensordict_module(deterministic=True)
    batch = TensorDict(
        {
            "observation": torch.randn(*shape, 3),
            STATE: torch.zeros(*shape, actor.layout.size),
            "is_init": torch.zeros(*shape, 1, dtype=torch.bool),
        },
        batch_size=shape,
    )
    out = actor(batch)
    assert out["action"].shape == (*shape, 4)
    assert out[AFTER].shape == (*shape, actor.layout.size)


def test_weights_are_the_policys_own() -> None:
    policy = _policy(BOX, spaces.Discrete(4))
    actor = policy.as_tensordict_module()
    assert {id(one) for one in actor.parameters()} == {id(one) for one in policy.parameters()}


@torchrl_014("has collectors that do not add the transforms of a policy")
def test_collector_finds_what_it_needs() -> None:
    policy = _policy(BOX, spaces.Discrete(4), previous_reward=True)
    collector = Collector(
        GymWrapper(Task(BOX, spaces.Discrete(4))),
        policy.as_tensordict_module(),
        frames_per_batch=30,
        total_frames=60,
        auto_register_policy_transforms=True,
    )
    try:
        for batch in collector:
            assert batch["is_init"].any() and batch[AFTER].any()
    finally:
        collector.shutdown()


def test_nested_actions_are_refused() -> None:
    policy = _policy(BOX, spaces.Dict({"a": spaces.Discrete(2)}))
    with pytest.raises(ValueError, match="expected one without parts"):
        policy.as_tensordict_module()


def test_missing_state_names_the_primer() -> None:
    policy = _policy(BOX, spaces.Discrete(4))
    with pytest.raises(KeyError, match=r"make_tensordict_primer\(\)"):
        GymWrapper(Task(BOX, spaces.Discrete(4))).rollout(2, policy.as_tensordict_module())


@pytest.mark.usefixtures("forked")
def test_copy_in_another_process_acts_alike() -> None:
    policy = _policy(BOX, spaces.Discrete(4), previous_action=True)
    actor = pickle.loads(pickle.dumps(policy.as_tensordict_module()))
    env = ParallelEnv(2, functools.partial(_env, actor, policy), mp_start_method="fork")
    try:
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            batch = env.rollout(20, actor, break_when_any_done=False)
        _check(batch, policy, _one_hot(4))
    finally:
        env.close()
