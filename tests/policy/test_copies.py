"""A policy that is pickled, saved whole, copied, or sent to another process acts as the first."""

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl.memory.config import MEMORIES
from xlstm_rl.policy import Actor, GraphActor, Policy

Make = Callable[..., Policy]
OBS = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
ACTION = spaces.Dict(arm=spaces.Box(-2, 2, (2,)), gear=spaces.Discrete(3, start=1))
OBSERVATION = spaces.Dict(
    eye=spaces.Box(0, 255, (8, 8, 3), np.uint8),
    pose=spaces.Box(-1, 1, (3,), np.float64),
    keys=spaces.MultiDiscrete([2, 3], start=[1, 0]),
)
AUXILIARY = {"previous_action": True, "previous_reward": True, "first_step": True}


def _by_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def _by_torch_save(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {"pickle": _by_pickle, "torch.save": _by_torch_save, "deepcopy": copy.deepcopy}


def _acts(policy: Policy, obs: list[Any]) -> list[Any]:
    state, found = None, []
    for t, one in enumerate(obs):
        action, state = policy.act(one, state, t == 3, reward=np.full(2, 0.5 * t))
        found.append(action)
    return found


def _assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(ours, dict):
        for key in ours:
            _assert_same(ours[key], theirs[key])
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", list(MEMORIES.classes))
@pytest.mark.each_value
def test_a_copy_of_a_policy_acts_as_it_does(make_policy: Make, kind: str, way: str) -> None:
    policy = make_policy(kind=kind, action=ACTION, config=AUXILIARY)
    policy.auxiliary.update(torch.randn(50) * 7)
    other = WAYS[way](policy)
    for ours, theirs in zip(_acts(policy, list(OBS)), _acts(other, list(OBS)), strict=True):
        _assert_same(ours, theirs)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_a_policy_of_nested_spaces_acts_as_it_does(make_policy: Make, way: str) -> None:
    policy = make_policy(OBSERVATION, ACTION)
    obs = []
    for seed in range(4):
        OBSERVATION.seed(seed)
        obs.append({key: np.stack([x] * 2) for key, x in OBSERVATION.sample().items()})
    copied = _acts(WAYS[way](policy), obs)
    for ours, theirs in zip(_acts(policy, obs), copied, strict=True):
        _assert_same(ours, theirs)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_goes_its_own_way(make_policy: Make, way: str) -> None:
    policy = make_policy(config=AUXILIARY)
    before = policy.normalizer(torch.ones(1, 3)).clone(), policy.auxiliary.scale.clone()
    other = WAYS[way](policy)
    # statistics that are loaded into the copy take effect in the copy, and there alone
    donor = make_policy(config=AUXILIARY)
    donor.normalizer.update(100.0 * torch.randn(1000, 3) + 50.0)
    donor.auxiliary.update(torch.full((50,), 9.0))
    other.load_state_dict(donor.state_dict())
    x = torch.ones(1, 3)
    torch.testing.assert_close(other.normalizer(x), donor.normalizer(x))
    torch.testing.assert_close(other.auxiliary.scale, donor.auxiliary.scale)
    torch.testing.assert_close(policy.normalizer(x), before[0])
    torch.testing.assert_close(policy.auxiliary.scale, before[1])
    assert (policy.normalizer(x) - other.normalizer(x)).abs().max() > 0.1


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_an_actor_goes_on_where_it_was(make_policy: Make, way: str) -> None:
    actor = make_policy().actor(num_envs=2)
    for obs in OBS[:3]:
        actor(obs)
    other: Actor = WAYS[way](actor)
    for obs in OBS[3:]:
        np.testing.assert_array_equal(other(obs), actor(obs))
    other(OBS[0], reset=True)
    assert (other.state != actor.state).any()


class _Repeat:
    """Stands for a CUDA graph where there is no GPU."""

    def capture(self, run: Callable[[], Any]) -> Any:
        self.run = run
        return run()

    def replay(self) -> None:
        self.run()


@pytest.mark.parametrize("way", WAYS)
def test_an_actor_with_a_captured_graph_says_that_it_cannot_be_copied(
    make_policy: Make, way: str
) -> None:
    actor = GraphActor(make_policy(), 2, True, _Repeat())
    with pytest.raises(TypeError, match=r"CUDA graph.*send the policy, and make an actor"):
        WAYS[way](actor)


def act_elsewhere(acting: Any, obs: Any, pipe: Connection) -> None:
    """Act in another process: what it is sent, without a line of this file's state."""
    torch.set_num_threads(1)
    if isinstance(acting, Policy):
        acting = acting.actor(num_envs=2)
    pipe.send([acting(one) for one in obs])


@pytest.mark.parametrize(("method", "what"), [("spawn", "policy"), ("forkserver", "actor")])
@pytest.mark.few(1)
def test_another_process_acts_as_this_one(make_policy: Make, what: str, method: str) -> None:
    policy = make_policy(action=spaces.Discrete(3, start=1))
    acting = policy if what == "policy" else policy.actor(num_envs=2)
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=act_elsewhere, args=(acting, OBS, theirs))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    finally:
        process.join()
    actor = policy.actor(num_envs=2)
    for one, action in zip(OBS, found, strict=True):
        np.testing.assert_array_equal(action, actor(one))
