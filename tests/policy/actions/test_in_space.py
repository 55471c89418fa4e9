"""Every action that leaves a policy is in the action space, in the space's own dtype."""

import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.envs.spaces.leaves import map_leaves, row_of, space_leaves, take
from xlstm_rl.policy import Policy, PolicyConfig
from xlstm_rl.policy.actions.distributions import make_distribution

Make = Callable[..., Policy]

F16, F32, F64 = (np.finfo(dtype).max for dtype in (np.float16, np.float32, np.float64))
OUTWARDS = spaces.Box(np.array([0.1, -0.3, 1 / 3]), np.array([0.7, 0.9, 2 / 3]), dtype=np.float64)
BOXES: dict[str, spaces.Box] = {
    "float32": spaces.Box(np.float32([-2, 0]), np.float32([2, 1])),
    "float64, rounded outwards by float32": OUTWARDS,
    "float16": spaces.Box(-0.1, 0.1, (3,), np.float16),
    "float16, unbounded": spaces.Box(-np.inf, np.inf, (3,), np.float16),
    "float16, the largest numbers": spaces.Box(-F16, F16, (3,), np.float16),
    "longdouble": spaces.Box(np.longdouble("0.1"), np.longdouble("0.7"), (2,), np.longdouble),
    "float32, the largest numbers": spaces.Box(-F32, F32, (2,), np.float32),
    "float64, the largest numbers": spaces.Box(-F64, F64, (2,), np.float64),
    "float64, float32's largest numbers": spaces.Box(-float(F32), float(F32), (2,), np.float64),
    "one bound": spaces.Box(np.float32([-np.inf, 0]), np.float32([1, np.inf])),
    "one bound, far from 0": spaces.Box(np.float32([-np.inf, 5]), np.float32([-7, F32])),
    "huge": spaces.Box(-1e30, 1e30, (2,), np.float32),
    "one point": spaces.Box(np.float32([0.1, 3]), np.float32([0.1, 3])),
    "one point, float64": spaces.Box(0.1, 0.1, (1,), np.float64),
    "above 0": spaces.Box(1e8, 1e8 + 24, (2,), np.float32),
    "a number": spaces.Box(-0.1, 0.3, (), np.float64),
    "a matrix": spaces.Box(-0.1, 0.3, (2, 1), np.float64),
}
TYPED: dict[str, dict[str, Any]] = {
    "int32": {"n": 3, "start": -1, "dtype": np.int32},
    "uint8": {"n": 200, "start": 50, "dtype": np.uint8},
    "uint64": {"n": 3, "start": 2**63 + 5, "dtype": np.uint64},
}
if "dtype" not in inspect.signature(spaces.Discrete).parameters:
    TYPED = {}  # Gymnasium before 1.3 has no other dtype than int64
CHOICES: dict[str, gymnasium.Space[Any]] = {
    **{name: spaces.Discrete(**arguments) for name, arguments in TYPED.items()},
    "numpy's n": spaces.Discrete(np.int64(3), start=np.int16(1)),
    "several, int16": spaces.MultiDiscrete([[2, 3], [4, 1]], dtype=np.int16, start=[[1, -2]] * 2),
    "several, uint32": spaces.MultiDiscrete([2, 3], dtype=np.uint32, start=[7, 2**32 - 9]),
    "bits": spaces.MultiBinary((2, 2)),
}
TWO_SIDED = [name for name in BOXES if "one bound" not in name]
NESTED = spaces.Dict(
    {
        **{f"box {name}": BOXES[name] for name in TWO_SIDED},
        "choices": spaces.Tuple(list(CHOICES.values())),
    }
)
SPACES: dict[str, tuple[gymnasium.Space[Any], str]] = {
    **{f"{name}, clip": (space, "clip") for name, space in BOXES.items()},
    **{f"{name}, tanh": (BOXES[name], "tanh") for name in TWO_SIDED},
    **{name: (space, "clip") for name, space in CHOICES.items()},
    "nested, clip": (NESTED, "clip"),
    "nested, tanh": (NESTED, "tanh"),
}


def _assert_inside(space: gymnasium.Space[Any], action: Any) -> None:
    assert space.contains(action)
    for leaf in space_leaves(space):
        found = np.asarray(take(action, leaf.path))
        assert leaf.space.dtype is not None
        if leaf.space.dtype != np.longdouble:  # which no tensor can be
            assert found.dtype == leaf.space.dtype
        assert np.isfinite(found).all()


@pytest.mark.parametrize("std", ["free", "state"])
@pytest.mark.parametrize("name", SPACES)
def test_actions_of_any_parameters_are_in_the_space(name: str, std: str) -> None:
    space, bounds = SPACES[name]
    boxes = any(isinstance(leaf.space, spaces.Box) for leaf in space_leaves(space))
    options = {"action_bounds": bounds, "action_std": std} if boxes else {}
    config = PolicyConfig(**options)
    distribution = make_distribution(space, config)
    size = distribution.num_params
    rows = [torch.zeros(size), 3.0 * torch.randn(size)]
    rows += [torch.full((size,), sign * x) for x in (1.0, 1e4, 3e38) for sign in (-1, 1)]
    params = torch.stack(rows)
    actions = [distribution.mode(params), *[distribution.sample(params) for _ in range(20)]]
    for dtype in (torch.float32, torch.float64):
        for action in actions:
            kept = action if not action.is_floating_point() else action.to(dtype)
            batch = map_leaves(lambda one: one.numpy(), distribution.to_env(kept))
            for row in range(len(rows)):
                _assert_inside(space, row_of(batch, row))


@pytest.mark.parametrize("name", SPACES)
def test_a_policy_acts_inside_the_space_in_every_way(make_policy: Make, name: str) -> None:
    space, bounds = SPACES[name]
    policy = make_policy(action=space, config={"action_bounds": bounds})
    with torch.no_grad():
        policy.network.action_head.output.weight.mul_(1e6)
    obs = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    for deterministic in (True, False):
        one, many = policy.actor(None, deterministic), policy.actor(4, deterministic)
        state = None
        for _ in range(3):
            _assert_inside(space, one(obs[0]))
            actions, state = policy.act(obs, state, deterministic=deterministic)
            for batch in (many(obs), actions):
                for row in range(4):
                    _assert_inside(space, row_of(batch, row))
        tensors, _ = policy.act(torch.from_numpy(obs), deterministic=deterministic)
        arrays = map_leaves(lambda x: x.numpy(), tensors)
        _assert_inside(space, row_of(arrays, 0))


TRAINED = ["nested, tanh", "a number, clip", "several, int16", "float16, clip", *list(TYPED)[:1]]


@pytest.mark.parametrize("name", TRAINED)
def test_what_trains_and_evaluates_is_inside_the_space(any_spaces: Any, name: str) -> None:
    space, bounds = SPACES[name]
    seen: list[Any] = []

    class Watching(any_spaces):  # type: ignore[misc]
        def step(self, action: Any) -> Any:
            seen.append(action)
            _assert_inside(space, action)
            return super().step(action)

    def make() -> Any:
        return Watching(spaces.Box(-1, 1, (3,)), space)

    agent = RecurrentPPO(
        make,
        env={"num_envs": 2},
        memory={"width": 16, "num_heads": 2},
        policy={"action_bounds": bounds},
        agent={"rollout_steps": 8, "epochs": 1, "minibatches": 1},
        logger={"kind": "none"},
    )
    agent.learn(32)
    evaluate(agent.policy, make, episodes=2)
    assert len(seen) > 32


@pytest.mark.parametrize("name", [name for name in BOXES if "largest" in name or name == "huge"])
def test_bounds_too_large_for_a_scale_count_as_none(name: str) -> None:
    space = BOXES[name]
    distribution = make_distribution(space)
    u = torch.randn(100, space.shape[0])
    # as of a Box without bounds: the policy's numbers themselves
    torch.testing.assert_close(distribution.to_env(u).float(), u, atol=2e-3, rtol=1e-3)
    assert (distribution.features(10 * u) == 10 * u).all()


def test_with_one_bound_the_policy_starts_inside() -> None:
    distribution = make_distribution(BOXES["one bound, far from 0"])
    u = torch.tensor([[0.0, 0.0], [-1.0, 1.0], [1.0, -1.0]])
    assert distribution.to_env(u).tolist() == [[-7, 5], [-8, 6], [-7, 5]]
    assert distribution.features(u).tolist() == [[0, 0], [-1, 1], [0, 0]]
    # where 0 is inside, nothing is moved
    distribution = make_distribution(BOXES["one bound"])
    assert distribution.to_env(torch.tensor([[0.5, 0.5]])).tolist() == [[0.5, 0.5]]


def test_the_only_number_of_a_box_is_what_it_acts() -> None:
    distribution = make_distribution(spaces.Box(0.1, 0.1, (1,), np.float64))
    for u in (0.0, -3.0, 3e38, float("inf")):
        assert distribution.to_env(torch.tensor([[u]])).tolist() == [[0.1]]


def test_numbers_of_a_double_reach_the_environment_undiminished() -> None:
    space = spaces.Box(-3.0, 5.0, (1,), np.float64)
    u = torch.tensor([[1 / 7]], dtype=torch.float64)
    assert make_distribution(space).to_env(u).item() == 1.0 + 4.0 * (1 / 7)


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 3])], ids=str)
def test_a_masked_choice_is_not_taken_however_low_the_others_are(
    make_policy: Make, space: Any
) -> None:
    policy = make_policy(action=space, config={"action_mask": "info"})
    with torch.no_grad():
        policy.network.action_head.output.weight.zero_()
        policy.network.action_head.output.bias.fill_(-3e38)
    mask = np.ones((50, policy.auxiliary_reader.mask.width), dtype=np.int8)
    mask[:, 0] = 0
    for deterministic in (True, False):
        obs = np.zeros((50, 3), np.float32)
        actions, _ = policy.act(obs, deterministic=deterministic, action_mask=mask)
        assert (actions.reshape(50, -1)[:, 0] > 0).all()
        assert all(space.contains(one) for one in actions)
