"""The actor with a step captured in a CUDA graph acts as the plain actor does."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from xlstm_rl.envs.spaces.leaves import stack_values
from xlstm_rl.policy import Policy

Make = Callable[..., Policy]
Episodes = Callable[..., Iterator[tuple[Any, Any]]]
Nested = tuple[gymnasium.spaces.Dict, gymnasium.spaces.Dict]
B = 3

pytestmark = pytest.mark.gpu


def _on_gpu(t: Any) -> Any:
    """As tensors on the GPU; None and single bools as they are."""
    return torch.from_numpy(t).cuda() if isinstance(t, np.ndarray) else t


@pytest.mark.parametrize("as_tensors", [False, True], ids=["numpy", "tensors"])
def test_a_captured_step_equals_the_plain_one(
    make_policy: Make, episodes: Episodes, any_memory: dict[str, Any], as_tensors: bool
) -> None:
    policy = make_policy(**any_memory).to("cuda")
    plain, graph = policy.actor(B), policy.actor(B, cuda_graph=True)
    assert all(not tensor.any() for tensor in policy.unpack_state(graph.state, B))
    for obs, reset in episodes():
        if as_tensors:
            obs, reset = _on_gpu(obs), _on_gpu(reset)
        action, expected = graph(obs, reset), plain(obs, reset)
        assert type(action) is type(expected)
        torch.testing.assert_close(
            torch.as_tensor(action), torch.as_tensor(expected), atol=1e-5, rtol=1e-5
        )
    tensors = policy.unpack_state(graph.state, B), policy.unpack_state(plain.state, B)
    for mine, theirs in zip(*tensors, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_a_gpu_policy_acts_as_a_cpu_policy_does(
    make_policy: Make, episodes: Episodes, any_memory: dict[str, Any]
) -> None:
    policy = make_policy(**any_memory)
    steps = list(episodes(60))
    cpu = policy.actor(B)
    expected = [cpu(obs, reset) for obs, reset in steps]
    graph = policy.to("cuda").actor(B, cuda_graph=True)
    for (obs, reset), action in zip(steps, expected, strict=True):
        np.testing.assert_allclose(graph(obs, reset), action, atol=1e-3)


@pytest.mark.parametrize("deterministic", [True, False], ids=["mode", "sample"])
@pytest.mark.parametrize("action", [gymnasium.spaces.Discrete(3), None], ids=["choice", "torque"])
def test_no_way_of_acting_waits_for_the_gpu(
    make_policy: Make,
    episodes: Episodes,
    waiting_is_an_error: Callable[[], AbstractContextManager[None]],
    any_memory: dict[str, Any],
    action: Any,
    deterministic: bool,
) -> None:
    policy = make_policy(**any_memory, **({} if action is None else {"action": action})).to("cuda")
    graph = policy.actor(B, deterministic, cuda_graph=True)
    plain, state = policy.actor(B, deterministic), policy.initial_state(B)
    steps = [(_on_gpu(obs), _on_gpu(reset)) for obs, reset in episodes(20) if reset is not True]
    obs, reset = steps[0][0], torch.ones(B, dtype=torch.bool, device="cuda")
    plain(obs, reset)  # compiles kernels
    policy.act(obs, state, reset, deterministic)
    with waiting_is_an_error():
        for obs, reset in steps:
            graph(obs, reset)
            plain(obs, reset)
            _, state = policy.act(obs, state, reset, deterministic)
        graph(obs, reset=True)


def test_a_captured_step_of_nested_spaces_equals_the_plain_one(
    make_policy: Make, nested_spaces: Nested
) -> None:
    observation, action = nested_spaces
    config = {"previous_action": True, "previous_reward": True, "action_mask": "info"}
    policy = make_policy(observation, action, config=config).to("cuda")
    plain, graph = policy.actor(B), policy.actor(B, cuda_graph=True)
    for t in range(50):
        obs = stack_values(observation, [observation.sample() for _ in range(B)])
        mask = {"gear": (np.eye(3, dtype=np.int8)[np.random.default_rng(t).integers(3, size=B)],)}
        auxiliary = {"reward": np.full(B, t / 7), "action_mask": mask}
        ours, theirs = graph(obs, t % 9 == 0, **auxiliary), plain(obs, t % 9 == 0, **auxiliary)
        for a, b in zip(tree_leaves(ours), tree_leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_capture_leaves_the_generators_alone_and_replays_draw_on(make_policy: Make) -> None:
    policy = make_policy().to("cuda")
    obs = np.ones((B, 3), np.float32)
    before = torch.cuda.get_rng_state(), torch.get_rng_state()
    graph = policy.actor(B, deterministic=False, cuda_graph=True)
    assert torch.equal(torch.cuda.get_rng_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    torch.manual_seed(5)
    drawn = [graph(obs, reset=True) for _ in range(4)]
    assert np.abs(drawn[0] - drawn[1]).min() > 1e-6
    torch.manual_seed(5)
    again = [graph(obs, reset=True) for _ in range(4)]
    np.testing.assert_array_equal(again, drawn)
    plain = policy.actor(B, deterministic=False)
    torch.manual_seed(5)
    for action in drawn:
        np.testing.assert_allclose(plain(obs, reset=True), action, atol=1e-5)


def test_a_graph_sees_weights_change_and_refuses_those_that_moved(make_policy: Make) -> None:
    policy, other = make_policy().to("cuda"), make_policy().to("cuda")
    plain, graph = policy.actor(B), policy.actor(B, cuda_graph=True)
    obs = np.ones((B, 3), np.float32)
    before = graph(obs, reset=True)
    policy.load_state_dict(other.state_dict())
    after = graph(obs, reset=True)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, plain(obs, reset=True), atol=1e-5)
    policy.to("cpu")
    with pytest.raises(RuntimeError, match="make a new actor"):
        graph(obs)


def test_observations_on_the_host_may_be_overwritten_at_once(
    make_policy: Make, episodes: Episodes
) -> None:
    """Vector environments hand out the same buffer again and again."""
    policy = make_policy().to("cuda")
    plain, graph = policy.actor(B), policy.actor(B, cuda_graph=True)
    buffer = torch.empty(B, 3)
    outs = []
    for obs, _ in episodes(50):
        buffer.copy_(torch.from_numpy(obs))
        outs.append(graph(buffer))  # a tensor in: nothing waits here
    for (obs, _), action in zip(episodes(50), outs, strict=True):
        torch.testing.assert_close(action.cpu(), torch.from_numpy(plain(obs)), atol=1e-5, rtol=1e-5)
