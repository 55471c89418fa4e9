"""Actors: the state that they keep, and a step that can be captured."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xlstm_rl.memory.config import MEMORIES
from xlstm_rl.policy import Policy

Make = Callable[..., Policy]
OBS = np.random.default_rng(0).normal(size=(40, 2, 3)).astype(np.float32)


def test_an_actor_carries_no_state_of_a_separate_critic(make_policy: Make) -> None:
    policy = make_policy()
    actor, state = policy.actor(num_envs=2), None
    for obs in OBS[:10]:
        expected, state = policy.act(obs, state)
        np.testing.assert_array_equal(actor(obs), expected)
    assert state is not None and set(state.keys()) == {"memory", "critic_memory"}
    assert set(actor.state.keys()) == {"memory"}
    assert (actor.state["memory"] == state["memory"]).all()


def test_the_state_handed_in_says_which_memories_are_carried_on(make_policy: Make) -> None:
    policy = make_policy()
    alone, both = policy.initial_state(2, critic=False), policy.initial_state(2)

    def refuse(*_: Any) -> None:
        raise AssertionError("the critic has nothing to do with an action")

    for obs in OBS[:5]:
        expected, both = policy.act(obs, both)
        assert policy.network.critic_trunk is not None
        with policy.network.critic_trunk.encoder.register_forward_hook(refuse):
            action, alone = policy.act(obs, alone)
        np.testing.assert_array_equal(action, expected)
    assert set(alone.keys()) == {"memory"} and set(both.keys()) == {"memory", "critic_memory"}
    assert policy.network.critic_trunk.memory.unpack_state(both["critic_memory"])[0].any()


def test_a_state_with_the_names_of_version_0_1_is_carried_on(make_policy: Make) -> None:
    policy = make_policy()
    _, state = policy.act(OBS[0], None)
    old = state.copy().rename_key_("memory", "actor").rename_key_("critic_memory", "critic")
    expected, after = policy.act(OBS[1], state)
    action, found = policy.act(OBS[1], old)
    np.testing.assert_array_equal(action, expected)
    assert set(found.keys()) == {"memory", "critic_memory"} and (found == after).all()
    assert set(old.keys()) == {"actor", "critic"}
    actor = policy.actor(num_envs=2)
    actor.state = old
    np.testing.assert_array_equal(actor(OBS[1]), expected)


@pytest.mark.parametrize("kind", list(MEMORIES.classes))
def test_a_state_that_was_read_stays_and_can_be_gone_on_from(make_policy: Make, kind: str) -> None:
    policy = make_policy(kind=kind)
    actor = policy.actor(num_envs=2)
    for obs in OBS[:5]:
        actor(obs)
    saved = actor.state
    copy = saved.clone()
    rest = [actor(obs) for obs in OBS[5:10]]
    other = policy.actor(num_envs=2)
    other.state = saved
    for obs, expected in zip(OBS[5:10], rest, strict=True):
        np.testing.assert_array_equal(other(obs), expected)
    assert (saved == copy).all()


def test_a_state_with_the_critic_s_can_be_assigned(make_policy: Make) -> None:
    policy = make_policy()
    _, state = policy.act(OBS[0])
    actor = policy.actor(num_envs=2)
    actor.state = state
    np.testing.assert_array_equal(actor(OBS[1]), policy.act(OBS[1], state)[0])


def test_numpy_in_numpy_out_and_tensors_in_tensors_out(make_policy: Make) -> None:
    policy = make_policy(action=gymnasium.spaces.Discrete(3))
    one = policy.actor()
    assert isinstance(one(OBS[0, 0]), np.int64)
    assert gymnasium.spaces.Discrete(3).contains(one(OBS[0, 0]))
    tensor = one(torch.from_numpy(OBS[0, 0]))
    assert isinstance(tensor, torch.Tensor) and tensor.shape == ()
    many = policy.actor(num_envs=2)(torch.from_numpy(OBS[0]))
    assert isinstance(many, torch.Tensor) and many.shape == (2,)


@pytest.mark.parametrize(
    ("num_envs", "shape", "message"),
    [
        (2, (3, 3), r"obs has shape \[3, 3\], expected \[2, 3\].*for 2 environments"),
        (2, (3,), r"obs has shape \[3\], expected \[2, 3\]"),
        (None, (2, 3), r"obs has shape \[2, 3\], expected \[3\].*unbatched; policy\.actor\("),
    ],
)
def test_observations_of_another_shape_are_refused(
    make_policy: Make, num_envs: int | None, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy().actor(num_envs)(np.zeros(shape, np.float32))


class _OneDevice(TorchDispatchMode):
    """Fails where an operation has tensors on two devices."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {
            x.device for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)
        }
        assert len(devices) < 2, f"{func} goes from one device to another: {devices}"
        return out


@pytest.mark.parametrize("std", ["free", "state"])
@pytest.mark.parametrize("bounds", ["clip", "tanh"])
@pytest.mark.parametrize("deterministic", [True, False], ids=["mode", "sample"])
@pytest.mark.each_value
def test_nothing_of_nested_spaces_asks_for_a_value_off_the_cpu(
    make_policy: Make, deterministic: bool, bounds: str, std: str
) -> None:
    spaces = gymnasium.spaces
    observation = spaces.Dict(
        eye=spaces.Box(0, 255, (40, 40, 3), np.uint8),
        far=spaces.Box(0, 255, (3, 8, 8), np.uint8),
        room=spaces.Discrete(3, start=2),
        keys=spaces.MultiDiscrete([2, 3], start=[1, 0]),
        bits=spaces.MultiBinary(2),
        pose=spaces.Box(-1, 1, (2, 2)),
    )
    action = spaces.Tuple(
        [
            spaces.Box(-1, 1, (2, 1)),
            spaces.Discrete(3, start=1),
            spaces.MultiDiscrete([2, 3]),
            spaces.MultiBinary(2),
        ]
    )
    config = {"previous_action": True, "previous_reward": True, "first_step": True}
    config |= {"action_mask": "info", "action_bounds": bounds, "action_std": std}
    policy = make_policy(observation, action, config=config).to("meta")
    device = torch.device("meta")
    obs = policy.reader.example(5, device)
    reset = torch.zeros(5, dtype=torch.bool, device=device)
    mask = torch.ones(5, policy.auxiliary_reader.mask.width, dtype=torch.bool, device=device)
    with _OneDevice():
        for inplace in (False, True):
            tensors = policy.initial_tensors(5, device, critic=False)
            out, _ = policy.step(
                obs,
                tensors,
                reset,
                deterministic,
                inplace=inplace,
                auxiliary=(torch.zeros(5, device=device), mask),
            )
            shapes = [tuple(one.shape) for one in out]
            assert shapes == [(5, 2, 1), (5,), (5, 2), (5, 2)]


@pytest.mark.parametrize("deterministic", [True, False], ids=["mode", "sample"])
@pytest.mark.parametrize("action", [gymnasium.spaces.Discrete(3, start=1), None])
@pytest.mark.parametrize("observation", [gymnasium.spaces.Discrete(4, start=2), None])
@pytest.mark.parametrize("kind", list(MEMORIES.classes))
@pytest.mark.each_value
def test_a_step_off_the_cpu_never_asks_for_a_value(
    make_policy: Make, kind: str, observation: Any, action: Any, deterministic: bool
) -> None:
    """Meta tensors have no values: whoever asks for one, as a host does that waits, fails."""
    spaces = {"observation": observation, "action": action}
    policy = make_policy(kind=kind, **{k: v for k, v in spaces.items() if v is not None})
    policy.to("meta")
    obs = policy.reader.example(5, policy.device)
    reset = torch.zeros(5, dtype=torch.bool, device="meta")
    actor, tensors = policy.actor(num_envs=5, deterministic=deterministic), ()
    state = policy.initial_state(5)
    with _OneDevice():
        for inplace in (False, True):
            tensors = policy.network.initial_tensors(5, policy.device, critic=False)
            out, _ = policy.step(obs, tensors, reset, deterministic, inplace=inplace)
            assert out.shape == (5, *policy.action_space.shape) and out.device.type == "meta"
        policy.act(obs, state, reset, deterministic)
        actor(obs, reset)
