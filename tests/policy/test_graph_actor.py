"""The actor with a captured step, with a stand-in for the capture."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from xlstm_rl.envs.spaces.leaves import map_leaves, stack_values
from xlstm_rl.policy import Actor, GraphActor, Policy

from ..rerun import Rerun

Make = Callable[..., Policy]
Episodes = Callable[..., Iterator[tuple[Any, Any]]]
Nested = tuple[gymnasium.spaces.Dict, gymnasium.spaces.Dict]
B = 3


def _graph_actor(policy: Policy, num_envs: int | None = B, deterministic: bool = True) -> Actor:
    return GraphActor(policy, num_envs, deterministic, graph=Rerun())


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.each_value
def test_it_acts_as_the_plain_actor_does(
    make_policy: Make, episodes: Episodes, any_memory: dict[str, Any], critic: str
) -> None:
    policy = make_policy(critic=critic, **any_memory)
    plain, graph = policy.actor(B), _graph_actor(policy)
    for obs, reset in episodes():
        np.testing.assert_array_equal(graph(obs, reset), plain(obs, reset))
    assert (graph.state == plain.state).all()


def test_one_environment_unbatched(make_policy: Make, episodes: Episodes) -> None:
    space = gymnasium.spaces.Discrete(3, start=5)
    policy = make_policy(action=space)
    plain, graph = policy.actor(), _graph_actor(policy, None)
    for obs, reset in episodes(30, 1):
        action = graph(obs[0], reset)
        assert action == plain(obs[0], reset)
        assert space.contains(action)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8])
def test_observations_are_cast_as_the_normaliser_would(
    make_policy: Make, episodes: Episodes, dtype: Any
) -> None:
    policy = make_policy()
    plain, graph = policy.actor(B), _graph_actor(policy)
    for obs, _ in episodes(5):
        cast = np.abs(3.3 * obs).astype(dtype)
        np.testing.assert_array_equal(graph(cast), plain(cast))


@pytest.mark.parametrize("as_tensors", [False, True])
def test_nested_observations_actions_masks_and_the_step_before(
    make_policy: Make, nested_spaces: Nested, as_tensors: bool
) -> None:
    observation, action = nested_spaces
    config = {"previous_action": True, "previous_reward": True, "action_mask": "info"}
    policy = make_policy(observation, action, config=config)
    plain, graph = policy.actor(2), _graph_actor(policy, 2)
    rng = np.random.default_rng(0)
    for t in range(12):
        obs: Any = stack_values(observation, [observation.sample() for _ in range(2)])
        if as_tensors:
            obs = map_leaves(torch.as_tensor, obs)
        mask = {"gear": (np.eye(3, dtype=np.int8)[rng.integers(3, size=2)],)}
        auxiliary = {"reward": rng.normal(size=2), "action_mask": mask}
        reset = np.array([t == 5, t == 8])
        ours, theirs = graph(obs, reset, **auxiliary), plain(obs, reset, **auxiliary)
        pairs = zip(tree_leaves(ours), tree_leaves(theirs), strict=True)
        assert all(bool((a == b).all()) for a, b in pairs)
        assert (np.asarray(ours["gear"][0]) - 1 == mask["gear"][0].argmax(1)).all()
    assert (graph.state == plain.state).all()


def test_discrete_observations(make_policy: Make) -> None:
    policy = make_policy(gymnasium.spaces.Discrete(4, start=2))
    plain, graph = policy.actor(2), _graph_actor(policy, 2)
    for obs in ([2, 5], [3, 3], [4, 2]):
        np.testing.assert_array_equal(graph(np.array(obs)), plain(np.array(obs)))


def test_the_state_is_fresh_at_first_and_lives_where_it_lay(
    make_policy: Make, episodes: Episodes
) -> None:
    policy = make_policy()
    graph = _graph_actor(policy)
    assert all(not tensor.any() for tensor in policy.unpack_state(graph.state, B))
    where = [tensor.data_ptr() for tensor in graph._tensors]
    for obs, reset in episodes(5):
        graph(obs, reset)
    graph.state = policy.initial_state(B)
    assert [tensor.data_ptr() for tensor in graph._tensors] == where


def test_what_was_handed_out_is_never_overwritten(make_policy: Make, episodes: Episodes) -> None:
    graph = _graph_actor(make_policy())
    (obs, _), *rest = list(episodes(5))
    array, tensor, state = graph(obs), graph(torch.from_numpy(obs)), graph.state
    before = array.copy(), tensor.clone(), state.clone()
    for obs, _ in rest:
        graph(obs)
    np.testing.assert_array_equal(array, before[0])
    assert torch.equal(tensor, before[1])
    assert (state == before[2]).all()


def test_a_reset_holds_for_one_step_alone(make_policy: Make) -> None:
    policy = make_policy()
    plain, graph = policy.actor(B), _graph_actor(policy)
    obs = np.ones((B, 3), np.float32)
    for reset in (None, np.array([True, False, True]), None, True, None, False, None):
        np.testing.assert_array_equal(graph(obs, reset), plain(obs, reset))


def test_a_state_can_be_carried_between_actors_and_act(
    make_policy: Make, episodes: Episodes
) -> None:
    policy = make_policy()
    plain, graph = policy.actor(B), _graph_actor(policy)
    steps = list(episodes(10))
    for obs, _ in steps[:5]:
        plain(obs)
    graph.state = plain.state
    for obs, _ in steps[5:]:
        state = graph.state
        action = graph(obs)
        np.testing.assert_array_equal(action, plain(obs))
        np.testing.assert_array_equal(action, policy.act(obs, state)[0])


def test_weights_and_statistics_that_change_in_place_are_seen(make_policy: Make) -> None:
    policy, other = make_policy(), make_policy()
    plain, graph = policy.actor(B), _graph_actor(policy)
    obs = np.ones((B, 3), np.float32)
    before = graph(obs, reset=True)
    policy.load_state_dict(other.state_dict())
    after = graph(obs, reset=True)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_array_equal(after, plain(obs, reset=True))
    policy.normalizer.update(10.0 * torch.randn(500, 3))
    again = graph(obs, reset=True)
    assert np.abs(again - after).max() > 1e-4
    np.testing.assert_array_equal(again, plain(obs, reset=True))


@pytest.mark.parametrize("change", ["cast", "assign"])
def test_a_policy_with_other_tensors_than_captured_is_refused(
    make_policy: Make, change: str
) -> None:
    policy = make_policy()
    graph = _graph_actor(policy)
    if change == "cast":
        policy.double()
    else:
        policy.load_state_dict(make_policy().state_dict(), assign=True)
    with pytest.raises(RuntimeError, match=r"moved or cast since.*make a new actor"):
        graph(np.zeros((B, 3), np.float32))


def test_replays_draw_different_samples_from_the_default_generator(make_policy: Make) -> None:
    policy = make_policy()
    plain, graph = policy.actor(B, deterministic=False), _graph_actor(policy, B, False)
    obs = np.ones((B, 3), np.float32)
    torch.manual_seed(5)
    drawn = [graph(obs, reset=True) for _ in range(4)]
    torch.manual_seed(5)
    for action in drawn:
        np.testing.assert_array_equal(action, plain(obs, reset=True))
    assert np.abs(drawn[0] - drawn[1]).min() > 1e-6


@pytest.mark.parametrize(
    ("obs", "reset"),
    [
        (np.zeros((B + 1, 3), np.float32), None),
        (np.zeros((B, 3), np.float32), np.array([True] * (B + 1))),
        (np.zeros((B, 3), np.float32), np.array([0, 1, 0])),
    ],
)
def test_a_refused_call_leaves_everything_as_it_was(
    make_policy: Make, obs: Any, reset: Any
) -> None:
    policy = make_policy()
    graph = _graph_actor(policy)
    graph(np.ones((B, 3), np.float32))
    before = graph.state
    with pytest.raises(ValueError, match="has shape"):
        graph(obs, reset)
    assert (graph.state == before).all()
    assert not graph._reset.tensor.any()


def test_it_can_be_made_in_inference_mode(make_policy: Make) -> None:
    policy = make_policy()
    obs = np.ones((B, 3), np.float32)
    with torch.inference_mode():
        graph = _graph_actor(policy)
        graph(obs)
    graph.state = policy.initial_state(B)
    np.testing.assert_array_equal(graph(obs), policy.actor(B)(obs))


def test_a_policy_on_the_cpu_is_refused(make_policy: Make) -> None:
    with pytest.raises(RuntimeError, match=r"needs a policy on a CUDA.*is on cpu.*to\('cuda'\)"):
        make_policy().actor(num_envs=2, cuda_graph=True)
