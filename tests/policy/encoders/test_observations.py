"""What is read beside and with an observation: taken as it is meant, or refused with a word."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl.policy import Policy

Make = Callable[..., Policy]
BOX = spaces.Box(-5, 5, (3,))
IMAGE = spaces.Box(0, 255, (8, 8, 3), np.uint8)
BITS = spaces.MultiBinary(2)
KEYS = spaces.MultiDiscrete([2, 3], start=[1, 0])


@pytest.mark.parametrize(
    ("space", "obs", "message"),
    [
        (BOX, [[0.0, np.nan, 0.0]], r"obs has NaN or infinite numbers.*nan"),
        (BOX, np.full((1, 3), np.inf, np.float32), r"obs has NaN or infinite numbers.*inf"),
        (BOX, np.full((1, 3), "x"), r"obs is a ndarray of dtype <U1, expected real numbers"),
        (BOX, torch.ones(1, 3, dtype=torch.complex64), r"obs has dtype torch.complex64, expected"),
        (spaces.Discrete(3), [3], r"obs is 3, which is not in its space Discrete\(3\)"),
        (spaces.Discrete(3, start=2), np.array([1]), r"obs is 1, which is not in its space"),
        (spaces.Discrete(3), [1.7], r"obs has dtype torch.float64, expected integers"),
        (spaces.Discrete(3), torch.ones(1), r"obs has dtype torch.float32, expected integers"),
        (KEYS, [[1, 0], [3, 0]], r"obs is \[3 0\], which is not in its space MultiDiscrete"),
        (KEYS, np.array([[1, 3]]), r"obs is \[1 3\], which is not in its space MultiDiscrete"),
        (IMAGE, np.full((1, 8, 8, 3), 0.5), r"obs has dtype torch.float64, expected torch.uint8"),
        (IMAGE, np.full((1, 8, 8, 3), 256), r"obs has dtype torch.int64, expected torch.uint8"),
        (IMAGE, np.full((1, 8, 8, 3), -1), r"obs has dtype torch.int64, expected torch.uint8"),
        (IMAGE, torch.ones(1, 8, 8, 3), r"obs has dtype torch.float32, expected torch.uint8"),
        (IMAGE, np.zeros((1, 3, 8, 8), np.uint8), r"obs has shape \[1, 3, 8, 8\], expected"),
        (spaces.Discrete(3), 1, r"obs has shape \[\], expected \[B\]"),
        (spaces.Dict(a=BOX), {"a": [[0.0, 0.0, np.nan]]}, r"obs 'a' has NaN or infinite"),
        (BOX, torch.tensor([[0.0, torch.nan, 0.0]]), r"obs has NaN or infinite numbers.*nan"),
        (BOX, torch.full((1, 3), torch.inf, dtype=torch.bfloat16), r"obs has NaN or infinite"),
        (spaces.Discrete(3), torch.tensor([3]), r"obs is 3, which is not in its space Discrete"),
        (KEYS, torch.tensor([[1, 3]]), r"obs is \[1 3\], which is not in its space MultiDiscrete"),
        (BITS, [[2, 0]], r"obs is \[2 0\], which is not in its space MultiBinary\(2\)"),
        (BITS, np.array([[0.5, 0]]), r"obs is \[0\.5 0\. \], which is not in its space"),
        (BITS, torch.tensor([[0, -1]]), r"obs is \[ 0 -1\], which is not in its space"),
        (BITS, torch.tensor([[0, 0.5]]), r"obs is \[0\.  0\.5\], which is not in its space"),
        (spaces.Dict(a=BITS), {"a": torch.tensor([[3, 1]])}, r"obs 'a' is \[3 1\], which is not"),
    ],
)
def test_what_no_policy_was_trained_on_is_refused(
    make_policy: Make, space: Any, obs: Any, message: str
) -> None:
    policy = make_policy(space)
    with pytest.raises(ValueError, match=message) as caught:
        policy.act(obs)
    assert "\n" not in str(caught.value)
    if isinstance(obs, np.ndarray):
        with pytest.raises(ValueError, match="obs"):
            policy.actor()(obs[-1])


@pytest.mark.parametrize(
    ("space", "obs", "same"),
    [
        (IMAGE, np.full((1, 8, 8, 3), 200).tolist(), np.full((1, 8, 8, 3), 200, np.uint8)),
        (IMAGE, np.full((1, 8, 8, 3), 200, np.int16), np.full((1, 8, 8, 3), 200, np.uint8)),
        (spaces.Discrete(3), [True], np.array([1])),
        (spaces.Discrete(3, start=1), np.array([2], np.uint8), np.array([2])),
        (KEYS, ((2, 1),), np.array([[2, 1]])),
        (spaces.MultiBinary(2), [[True, False]], np.array([[1, 0]], np.int8)),
        (spaces.Box(0, 1, (2,), np.bool_), [[1, 0]], np.array([[True, False]])),
        (BOX, np.array([[1, 2, 3]]), np.array([[1.0, 2.0, 3.0]], np.float32)),
        (BOX, np.full((1, 3), 2e19, np.float32), np.full((1, 3), 2e19)),
    ],
)
def test_what_means_the_same_is_read_as_the_same(
    make_policy: Make, space: Any, obs: Any, same: Any
) -> None:
    policy = make_policy(space)
    np.testing.assert_array_equal(policy.act(obs)[0], policy.act(same)[0])


@pytest.mark.parametrize(
    "flags",
    [
        [False, True],
        (False, True),
        np.array([False, True]),
        np.array([True, False])[::-1],
        np.array([0, 1], np.uint8),
        torch.tensor([False, True]),
        torch.tensor([0, 1], dtype=torch.uint8),
    ],
    ids=str,
)
def test_flags_of_other_types_reset_the_same_rows(make_policy: Make, flags: Any) -> None:
    policy, obs = make_policy(), np.ones((2, 3), np.float32)
    _, state = policy.act(2 * obs)
    expected, _ = policy.act(obs, state, np.array([False, True]))
    np.testing.assert_array_equal(policy.act(obs, state, flags)[0], expected)
    kept, _ = policy.act(obs, state)
    assert (kept != expected).any()
    for none in (np.bool_(False), False, [False, False], np.zeros(2, np.uint8)):
        np.testing.assert_array_equal(policy.act(obs, state, none)[0], kept)


@pytest.mark.parametrize(
    "flags", [[0, 1], [0.0, 1.0], np.array([0, 2], np.uint8), "no", [[False], [True]]], ids=str
)
def test_flags_that_may_mean_something_else_are_refused(make_policy: Make, flags: Any) -> None:
    policy = make_policy()
    with pytest.raises(ValueError, match="reset"):
        policy.act(np.ones((2, 3), np.float32), reset=flags)


@pytest.mark.parametrize(
    "reward",
    [
        [1, 2],
        np.array([1.0, 2.0]),
        np.array([2.0, 1.0])[::-1],
        np.array([[1], [2]], np.int8),
        np.array([1, 2], ">f4"),
        torch.tensor([1, 2]),
    ],
    ids=str,
)
def test_rewards_of_other_types_are_read_the_same(make_policy: Make, reward: Any) -> None:
    policy = make_policy(config={"previous_reward": True})
    obs = np.ones((2, 3), np.float32)
    _, state = policy.act(obs)
    expected, _ = policy.act(obs, state, reward=np.array([1, 2], np.float32))
    np.testing.assert_array_equal(policy.act(obs, state, reward=reward)[0], expected)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ([1.0, np.nan], "reward is .*nan.*NaN or infinite"),
        (np.array([1.0, np.inf]), "reward is .*inf.*NaN or infinite"),
        (["1", "2"], "reward is a list of dtype <U1, expected real numbers"),
        (1.0, r"reward has shape \[\], expected \[2\]"),
    ],
)
def test_rewards_that_are_none_are_refused(make_policy: Make, reward: Any, message: str) -> None:
    policy = make_policy(config={"previous_reward": True})
    obs = np.ones((2, 3), np.float32)
    _, state = policy.act(obs)
    with pytest.raises(ValueError, match=message):
        policy.act(obs, state, reward=reward)


def test_numbers_that_are_added_to_logits_are_no_mask(make_policy: Make) -> None:
    policy = make_policy(action=spaces.Discrete(3), config={"action_mask": "info"})
    obs = np.ones((2, 3), np.float32)
    flags = np.array([[1.0, 0.0, 1.0]] * 2)
    assert (policy.act(obs, action_mask=flags)[0] != 1).all()
    for forbidden in (-np.inf, -1e9, np.nan):
        added = np.where(flags == 1.0, 0.0, forbidden)
        with pytest.raises(ValueError, match=r"action mask has numbers such as.*expected flags"):
            policy.act(obs, action_mask=added)
