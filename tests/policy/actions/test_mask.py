"""Masks as environments give them, and what they do to a policy."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch.distributions import Categorical

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.collection.collector import Collector
from xlstm_rl.envs.spaces.leaves import map_leaves, row_of
from xlstm_rl.errors import EnvError
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig
from xlstm_rl.policy.actions.distributions import make_distribution
from xlstm_rl.policy.actions.mask import ActionMask

VECTOR = spaces.Box(-1, 1, (3,))
CHOICE = spaces.Discrete(3, start=2)
WHEELS = spaces.MultiDiscrete([2, 3])
NESTED = spaces.Dict(
    gear=CHOICE,
    rest=spaces.Tuple([spaces.MultiBinary(2), spaces.Box(-1, 1, (2,)), WHEELS]),
)


def _reader(space: gymnasium.Space[Any], **config: Any) -> ActionMask:
    return ActionMask(space, make_distribution(space, PolicyConfig(**config)))


def test_every_form_of_a_mask_is_read() -> None:
    assert _reader(CHOICE).read(np.array([[1, 0, 2], [0, 0, 1]]), 2).tolist() == [
        [True, False, True],
        [False, False, True],
    ]
    wheels = [[True, False, False, True, True]]
    for form in (
        (np.array([[1, 0]]), np.array([[0, 1, 1]])),
        np.array([[1, 0, 0, 1, 1]]),
        np.array([(np.array([1, 0]), np.array([0, 1, 1])), None], dtype=object)[:1],
    ):
        assert _reader(WHEELS).read(form, 1).tolist() == wheels
    bits = _reader(spaces.MultiBinary(3)).read(np.array([[0, 1, 2]]), 1)
    assert bits.tolist() == [[True, False, False, True, True, True]]


@pytest.mark.parametrize("std", ["free", "state"])
def test_a_nested_mask_leaves_what_it_does_not_name(std: str) -> None:
    reader = _reader(NESTED, action_std=std)
    numbers = 2 if std == "free" else 4
    flags = reader.read({"gear": np.array([[1, 0, 0]])}, 1)
    assert flags.tolist() == [[True, False, False] + [True] * (4 + numbers + 5)]
    rest = (None, None, (np.array([[0, 1]]), np.array([[1, 1, 1]])))
    flags = reader.read({"rest": rest}, 1)
    assert flags[0].nonzero()[0].size == reader.width - 1 and not flags[0, 7 + numbers]


@pytest.mark.parametrize(
    ("space", "mask", "message"),
    [
        (CHOICE, np.ones((2, 2)), r"shape \[2, 2\], expected \[2, 3\] for Discrete\(3, start=2\)"),
        (CHOICE, np.ones(3), r"shape \[3\], expected \[2, 3\]"),
        (spaces.MultiBinary(2), np.full((2, 2), 3), r"shape \[2, 2\].*0 and 1 for bits"),
        (spaces.MultiBinary(2), np.ones((2, 2), bool), r"dtype bool, expected integers"),
        (NESTED, np.ones((2, 3)), r"of 'gear' is to be in a dict or tuple.*got ndarray"),
        (NESTED, {"rest": (None, np.ones((2, 2)))}, r"of 'rest/1' has shape.*none for numbers"),
    ],
)
def test_masks_that_do_not_fit_are_refused(space: Any, mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _reader(space).read(mask, 2)


def test_an_empty_choice_is_found_wherever_it_is() -> None:
    reader = _reader(NESTED)
    flags = np.ones((3, reader.width), dtype=bool)
    assert reader.all_false(flags) is None
    flags[1, -3:] = False  # the second wheel
    assert reader.all_false(flags) == (1, " for 'rest/2'")
    flags = np.ones((3, 3), dtype=bool)
    flags[2] = False
    assert _reader(CHOICE).all_false(flags) == (2, "")


def _policy(action: Any = CHOICE, **config: Any) -> Policy:
    return Policy(
        VECTOR,
        action,
        MemoryConfig(kind="gru", width=8),
        PolicyConfig(head_width=8, **{"action_mask": "info", **config}),
        NormalizationConfig(),
    )


def test_a_masked_policy_is_the_renormalised_one() -> None:
    policy = _policy()
    x = {"observation": torch.randn(5, 3), "~action_mask": torch.tensor([[True, False, True]] * 5)}
    leaves = policy.network.initial_tensors(5)
    params, _, _ = policy.network.step(x, leaves, None)
    del x["~action_mask"]
    logits, _, _ = policy.network.step(x, leaves, None)
    action = torch.tensor([0, 2, 2, 0, 2])
    log_prob, entropy = policy.network.distribution.log_prob_and_entropy(params, action)
    theirs = Categorical(logits=logits[:, [0, 2]])
    torch.testing.assert_close(log_prob, theirs.log_prob(action // 2))
    torch.testing.assert_close(entropy, theirs.entropy())
    weight = policy.network.action_head.output.weight
    gradient = torch.autograd.grad((log_prob + entropy).sum(), weight)[0]
    assert torch.isfinite(gradient).all() and not gradient[1].any() and gradient[0].any()


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("action", [CHOICE, WHEELS, spaces.MultiBinary((2, 1)), NESTED], ids=str)
def test_what_is_forbidden_is_never_done(any_spaces: Any, action: Any, mode: AutoresetMode) -> None:
    policy = _policy(action)
    makers = [lambda: any_spaces(VECTOR, action, "info") for _ in range(4)]
    env = SyncVectorEnv(makers, autoreset_mode=mode)  # its environments refuse what is forbidden
    collector = Collector(env, policy, 40, 40, 0, torch.Generator().manual_seed(0))
    data = collector.collect().data
    with torch.no_grad():
        params, _, _ = policy.network(
            data["observation"], policy.network.initial_tensors(4), data["reset"]
        )
    log_prob, entropy = policy.network.distribution.log_prob_and_entropy(params, data["action"])
    valid = data["valid"]
    torch.testing.assert_close(log_prob[valid], data["log_prob"][valid], rtol=0, atol=1e-5)
    assert torch.isfinite(entropy).all()
    evaluate(policy, lambda: any_spaces(VECTOR, action, "info"), episodes=3, deterministic=False)


def test_actors_take_masks_of_one_environment_and_of_many(any_spaces: Any) -> None:
    policy = _policy(NESTED)
    env, actor = any_spaces(VECTOR, NESTED, "info"), policy.actor(deterministic=False)
    obs, info = env.reset(seed=0)
    for t in range(3):
        obs, *_, info = env.step(actor(obs, t == 0, action_mask=info.get("action_mask")))
    flags = torch.ones(2, policy.auxiliary_reader.mask.width, dtype=torch.bool)
    flags[:, :2] = False
    batch, _ = policy.act(np.zeros((2, 3)), deterministic=False, action_mask=flags)
    assert batch["gear"].tolist() == [4, 4]


def _lists(mask: Any) -> Any:
    """Return a mask with lists for its arrays."""
    if isinstance(mask, dict):
        return {key: _lists(part) for key, part in mask.items()}
    if isinstance(mask, tuple):
        return tuple(map(_lists, mask))
    return mask.tolist() if isinstance(mask, np.ndarray) else mask


_FORMS = {
    "arrays": lambda mask: mask,
    "lists": _lists,
    "lists in lists": lambda mask: list(_lists(mask)) if isinstance(mask, tuple) else _lists(mask),
    "tensors": lambda mask: map_leaves(
        lambda one: None if one is None else torch.from_numpy(one), mask
    ),
}


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize(
    ("action", "mask"),
    [
        (CHOICE, np.array([1, 0, 1])),
        (WHEELS, (np.array([1, 0]), np.array([0, 1, 1]))),
        (WHEELS, np.array([1, 0, 0, 1, 1])),
        (spaces.MultiDiscrete([2, 2]), (np.array([1, 0]), np.array([0, 1]))),
        (spaces.MultiDiscrete([1, 1]), (np.array([1]), np.array([1]))),
        (spaces.MultiBinary(3), np.array([0, 1, 2])),
        (spaces.MultiBinary((2, 3)), np.array([[0, 1, 2], [2, 2, 1]])),
        (
            NESTED,
            {
                "gear": np.array([0, 1, 1]),
                "rest": (np.array([1, 2]), None, (np.array([1, 0]), np.array([0, 1, 0]))),
            },
        ),
        (NESTED, {"rest": (np.array([1, 0]), None, np.array([1, 0, 0, 1, 0]))}),
    ],
    ids=str,
)
def test_lists_and_tensors_are_read_as_arrays_are(action: Any, mask: Any, form: str) -> None:
    policy, obs = _policy(action), np.zeros(3, np.float32)
    expected, given = policy.actor()(obs, True, action_mask=mask), _FORMS[form](mask)
    found = policy.actor()(obs, True, action_mask=given)
    assert str(found) == str(expected)
    several = np.empty(2, dtype=object)
    several[0], several[1] = given, mask
    actions = policy.actor(num_envs=2)(np.zeros((2, 3), np.float32), True, action_mask=several)
    assert str(row_of(actions, 0)) == str(row_of(actions, 1)) == str(expected)


def test_a_batch_of_masks_may_be_lists() -> None:
    policy, obs = _policy(), np.zeros((2, 3), np.float32)
    for form in ([[0, 0, 1], [1, 0, 0]], ((0, 0, 1), (1, 0, 0)), [torch.eye(3)[2], [1, 0, 0]]):
        assert policy.act(obs, action_mask=form)[0].tolist() == [4, 2]
    wheels = _policy(WHEELS)
    for each in ([[[1, 0], [0, 1]], [[0, 0, 1], [1, 0, 0]]], [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]):
        assert wheels.act(obs, action_mask=each)[0].tolist() == [[0, 2], [1, 0]]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([1, 0], r"shape \[2\], expected \[3\] for Discrete\(3, start=2\)"),
        ([[1, 0, 1], [1, 1]], r"shape \[5\], expected \[3\]"),
        ("101", r"shape \[\], expected \[3\]"),
    ],
)
def test_lists_that_do_not_fit_are_refused_by_actors(mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _policy().actor()(np.zeros(3, np.float32), True, action_mask=mask)
    with pytest.raises(ValueError, match=r"no array, expected one of shape \[2, 3\]"):
        _policy().act(np.zeros((2, 3)), action_mask=[1, 0, 1])
    three = np.array([None] * 3)
    with pytest.raises(ValueError, match="has 3 entries, expected 2: one for each environment"):
        _policy().act(np.zeros((2, 3)), action_mask=three)


def test_acting_refuses_a_mask_that_is_missing_empty_or_not_expected() -> None:
    obs = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"action_mask='info' and was given no action mask: pass"):
        _policy().act(obs)
    with pytest.raises(ValueError, match=r"'none' and was given an action mask"):
        _policy(action_mask="none").act(obs, action_mask=np.ones((2, 3)))
    with pytest.raises(ValueError, match="mask of environment 1 allows no action"):
        _policy().act(obs, action_mask=np.array([[0, 1, 0], [0, 0, 0]]))
    with pytest.raises(ValueError, match=r"needs Dict observations with the key 'action_mask'"):
        _policy(action_mask="observation")


class Stuck(gymnasium.Env[Any, Any]):
    """From its third step on, nothing is allowed, or nothing is said."""

    observation_space, action_space = VECTOR, CHOICE

    def __init__(self, silent: bool, healthy: bool = False) -> None:
        self.silent, self.healthy, self.t = silent, healthy, 0

    def _answer(self) -> Any:
        stuck = self.t >= 3 and not self.healthy
        mask = np.zeros(3, np.int8) if stuck else np.ones(3, np.int8)
        return np.zeros(3, np.float32), {} if stuck and self.silent else {"action_mask": mask}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self._answer()

    def step(self, action: Any) -> Any:
        self.t += 1
        obs, info = self._answer()
        return obs, 0.0, False, False, info


@pytest.mark.parametrize("silent", [False, True])
def test_an_environment_without_a_way_out_is_named_with_its_step(silent: bool) -> None:
    makers = [lambda n=n: Stuck(silent, healthy=n != 1) for n in range(3)]
    env = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    agent = RecurrentPPO(
        env,
        memory={"kind": "gru", "width": 8},
        policy={"action_mask": "info"},
        agent={"rollout_steps": 8, "minibatches": 1},
        logger={"kind": "none"},
    )
    what = "info has no 'action_mask'" if silent else "the action mask allows no action; end"
    with pytest.raises(EnvError, match=f"environment 1 at step 9: {what}"):
        agent.learn(100)
    with pytest.raises(EnvError, match=f"environment of episode 0 at step 3: {what}"):
        evaluate(agent.policy, lambda: Stuck(silent), episodes=1)


def test_a_mask_of_no_environments_has_no_rows() -> None:
    bits = np.zeros((0, 2), np.int8)
    assert _reader(spaces.MultiBinary(2)).read(bits, 0).shape == (0, 4)
    wheels = (np.zeros((0, 2)), np.zeros((0, 3)))
    assert _reader(WHEELS).read(wheels, 0).shape == (0, 5)
