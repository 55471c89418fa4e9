"""The normaliser inside the native step of a policy: the same numbers, and nothing stale."""

import copy
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.policy_step import StepChain
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig
from xlstm_rl.policy.native_step import RawInput

pytestmark = pytest.mark.skipif(not LOADED, reason="needs the native library")

_ACTIONS = {"discrete": gymnasium.spaces.Discrete(3), "box": gymnasium.spaces.Box(-2, 2, (2,))}


def _policy(
    dtype: type = np.float32,
    actions: str = "discrete",
    shape: tuple[int, ...] = (3,),
    beside: Any = None,
    **norm: Any,
) -> Policy:
    torch.manual_seed(0)
    space = gymnasium.spaces.Box(-np.inf, np.inf, shape, dtype)
    memory = MemoryConfig(pattern="ms", width=16, num_heads=2)
    config = PolicyConfig(**(beside or {}))
    policy = Policy(space, _ACTIONS[actions], memory, config, NormalizationConfig(**norm))
    with torch.no_grad():
        for weight in policy.network.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    flat = torch.randn(50, int(np.prod(shape)), dtype=torch.float64) * 3 + 7
    policy.normalizer.update(flat.to(policy.normalizer.number_dtype))
    return policy


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What every chain was given."""
    given: list[Tensor] = []
    run = StepChain.run

    def noted(self: StepChain, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        given.append(x)
        return run(self, x, *args, **kwargs)

    monkeypatch.setattr(StepChain, "run", noted)
    return given


def _params(policy: Policy, raw: Tensor, *, whole: bool) -> Tensor:
    tensors = policy.initial_tensors(raw.shape[0], critic=False)
    if whole:
        return policy.network.action_step(raw, tensors, None, False, RawInput(policy.normalizer))[0]
    return policy.network.action_step(policy.normalizer(raw), tensors, None)[0]


@pytest.mark.parametrize("actions", _ACTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("shape", [(3,), (2, 3), ()])
@pytest.mark.parametrize("norm", [{}, {"observation": False}, {"clip_observation": 0.5}])
@torch.no_grad()
def test_raw_observations_give_the_bits_of_normalised_ones(
    dtype: type, actions: str, shape: tuple[int, ...], norm: dict[str, Any], inputs: list[Tensor]
) -> None:
    policy = _policy(dtype, actions, shape, **norm)
    for numbers in (7 + 3 * torch.randn(5, *shape), 1e30 * torch.randn(5, *shape)):
        raw = torch.from_numpy(numbers.clamp(-2e9, 2e9).numpy().astype(dtype))
        whole = _params(policy, raw, whole=True)
        assert inputs[-1].dtype == policy.normalizer.number_dtype
        torch.testing.assert_close(whole, _params(policy, raw, whole=False), rtol=0, atol=0)
    assert len(inputs) == 4


PREVIOUS = {"previous_action": True}


@pytest.mark.parametrize("actions", _ACTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("shape", [(3,), (2, 3), ()])
@pytest.mark.parametrize("norm", [{}, {"observation": False}])
@pytest.mark.parametrize("inplace", [True, False])
@torch.no_grad()
@pytest.mark.each_value
def test_the_previous_action_is_read_in_the_same_call(
    dtype: type,
    actions: str,
    shape: tuple[int, ...],
    norm: Any,
    inplace: bool,
    inputs: list[Tensor],
) -> None:
    policy = _policy(dtype, actions, shape, PREVIOUS, **norm)
    other = copy.deepcopy(policy)
    other.network.trunk.register_forward_hook(lambda *_: None)  # goes by its modules
    other.network.trunk.memory.register_forward_hook(lambda *_: None)
    mine = policy.initial_tensors(4, critic=False)
    for t in range(6):
        before = tuple(one.clone() for one in mine)
        raw = torch.from_numpy((7 + 3 * torch.randn(4, *shape)).numpy().astype(dtype))
        reset = None if t % 2 else torch.arange(4) == t
        action, mine = policy.step(raw, mine, reset, inplace=inplace)
        expected, theirs = other.step(raw, before, reset)
        torch.testing.assert_close(action, expected, rtol=1e-5, atol=1e-5)
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert len(inputs) == 6
    assert all(x.dtype == policy.normalizer.number_dtype for x in inputs)


@pytest.mark.parametrize("more", ["previous_reward", "first_step"])
@torch.no_grad()
def test_what_else_stands_beside_it_is_joined_first(more: str, inputs: list[Tensor]) -> None:
    policy = _policy(beside={**PREVIOUS, more: True})
    reward = (torch.ones(4), None)
    policy.step(torch.randn(4, 3), policy.initial_tensors(4, critic=False), None, auxiliary=reward)
    assert [x.shape for x in inputs] == [(4, 3 + 3 + 1)]


@torch.no_grad()
def test_weights_that_a_part_has_are_never_stale() -> None:
    policy = _policy(beside=PREVIOUS)
    raw, found = torch.randn(4, 3), []
    parts: Any = policy.network.trunk.encoder[0]  # type: ignore[index]
    for weight in (None, *parts.parameters()):
        if weight is not None:
            weight.data.mul_(3)
        tensors = policy.initial_tensors(4, critic=False)
        tensors[0][:, 0] = tensors[1][:] = 1.0  # there was an action
        found.append(policy.step(raw, tensors, None)[1][3])
        x = policy.auxiliary.join(policy.normalizer(raw), tensors[:2], None, None, None)
        _, _, after = (
            copy.deepcopy(policy.network)
            .double()
            .actor_step(
                {name: one.double() for name, one in x.items()},
                tuple(one.double() for one in tensors[2:]),
                None,
            )
        )
        torch.testing.assert_close(found[-1].double(), after[1], rtol=1e-4, atol=1e-5)
    assert all(not torch.equal(a, b) for a, b in pairwise(found))


@torch.no_grad()
def test_nan_and_infinite_tensors_pass_as_they_do_in_torch() -> None:
    policy = _policy()
    raw = torch.tensor([[torch.nan, 1, 2], [torch.inf, 1, 2], [-torch.inf, 1, 2], [0, 1, 2]])
    whole, parts = (_params(policy, raw, whole=whole) for whole in (True, False))
    torch.testing.assert_close(whole, parts, rtol=0, atol=0, equal_nan=True)
    assert whole[0].isnan().all() and whole[1:].isfinite().all()


@torch.no_grad()
def test_statistics_are_never_stale(inputs: list[Tensor]) -> None:
    policy, other = _policy(), _policy()
    raw = 5 * torch.randn(4, 3)
    before = _params(policy, raw, whole=True)
    other.normalizer.update(100 * torch.randn(1000, 3))

    def differs_and_is_right() -> None:
        after = _params(policy, raw, whole=True)
        assert not torch.allclose(after, before)
        torch.testing.assert_close(after, _params(policy, raw, whole=False), rtol=0, atol=0)

    policy.load_state_dict(other.state_dict())
    differs_and_is_right()
    policy.normalizer.update(torch.randn(10_000, 3))
    differs_and_is_right()
    policy.normalizer = copy.deepcopy(other.normalizer)
    differs_and_is_right()
    policy.normalizer.scale = policy.normalizer.scale * 2  # another tensor in its place
    differs_and_is_right()


@torch.no_grad()
def test_a_hook_on_the_normaliser_sees_the_observations(inputs: list[Tensor]) -> None:
    policy, raw, seen = _policy(), torch.randn(2, 3), []
    expected = _params(policy, raw, whole=True)
    handle = policy.normalizer.register_forward_hook(lambda *args: seen.append(args[2]))
    torch.testing.assert_close(_params(policy, raw, whole=True), expected)
    handle.remove()
    assert len(seen) == 1 and len(inputs) == 1


def test_an_actor_takes_one_call_a_step_and_goes_on_from_a_given_state(
    inputs: list[Tensor],
) -> None:
    policy = _policy(actions="box")
    actor, other = policy.actor(2), policy.actor(2)
    raw = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    first = [actor(one, reset=n == 0) for n, one in enumerate(raw)]
    assert len(inputs) == 6 and all(x.shape == (2, 3) for x in inputs)
    for one in raw[:3]:
        other(one)
    kept = other.state
    for _ in range(2):  # the same tensors hold another state the second time
        other.state = kept
        for one, action in zip(raw[3:], first[3:], strict=True):
            np.testing.assert_array_equal(other(one), action)


def test_two_actors_of_a_policy_do_not_meet(inputs: list[Tensor]) -> None:
    policy = _policy(actions="box")
    raw = np.random.default_rng(0).normal(size=(8, 2, 2, 3)).astype(np.float32)

    def alone(column: int) -> list[Any]:
        actor = policy.actor(2)
        return [actor(one, reset=n == 0) for n, one in enumerate(raw[:, column])]

    expected = [alone(0), alone(1)]
    actors = policy.actor(2), policy.actor(2)
    for n, both in enumerate(raw):
        for column, actor in enumerate(actors):
            np.testing.assert_array_equal(actor(both[column], reset=n == 0), expected[column][n])
