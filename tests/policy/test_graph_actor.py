"""The actor with a captured step, with a stand-in for the capture; on a GPU with the real one.

The tests marked `gpu` compare with the plain actor on a CUDA device.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from xlstm_rl.envs.spaces.leaves import map_leaves, stack_values
from xlstm_rl.memory.config import MEMORIES
from xlstm_rl.policy import Actor, GraphActor, Policy

Make = Callable[..., Policy]
PATTERNS = {pattern: {"pattern": pattern} for pattern in ("m", "s", "ms")}
KINDS = {kind: {"kind": kind} for kind in MEMORIES.classes if kind != "xlstm"}
VARIANTS = PATTERNS | KINDS
B = 3


class Rerun:
    """Stands in for a CUDA graph: a replay runs the step again, into the same output."""

    def __init__(self) -> None:
        self.replays = 0

    def capture(self, run: Callable[[], Tensor]) -> Tensor:
        for _ in range(3):  # a warm-up, with traces in the state
            self._out = run()
        self._run = run
        return self._out

    def replay(self) -> None:
        self.replays += 1
        for old, new in zip(tree_leaves(self._out), tree_leaves(self._run()), strict=True):
            old.copy_(new)


def _graph_actor(policy: Policy, num_envs: int | None = B, deterministic: bool = True) -> Actor:
    return GraphActor(policy, num_envs, deterministic, graph=Rerun())


def _episodes(steps: int = 200, rows: int = B) -> Iterator[tuple[Any, Any]]:
    """Observations with resets of every form: none, of some rows, of all, and one bool."""
    rng = np.random.default_rng(1)
    for t in range(steps):
        obs = rng.normal(size=(rows, 3)).astype(np.float32)
        reset: Any = rng.random(rows) < 0.1 if t % 3 == 0 else None
        yield obs, (True if t % 50 == 0 else False if t % 50 == 20 else reset)


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("memory", VARIANTS.values(), ids=VARIANTS.keys())
def test_it_acts_as_the_plain_actor_does(
    make_policy: Make, memory: dict[str, Any], critic: str
) -> None:
    policy = make_policy(critic=critic, **memory)
    plain, graph = policy.actor(B), _graph_actor(policy)
    for obs, reset in _episodes():
        np.testing.assert_array_equal(graph(obs, reset), plain(obs, reset))
    assert (graph.state == plain.state).all()


def test_one_environment_unbatched(make_policy: Make) -> None:
    space = gymnasium.spaces.Discrete(3, start=5)
    policy = make_policy(action=space)
    plain, graph = policy.actor(), _graph_actor(policy, None)
    for obs, reset in _episodes(30, 1):
        action = graph(obs[0], reset)
        assert action == plain(obs[0], reset)
        assert space.contains(action)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8])
def test_observations_are_cast_as_the_normaliser_would(make_policy: Make, dtype: Any) -> None:
    policy = make_policy()
    plain, graph = policy.actor(B), _graph_actor(policy)
    for obs, _ in _episodes(5):
        cast = np.abs(3.3 * obs).astype(dtype)
        np.testing.assert_array_equal(graph(cast), plain(cast))


NESTED = gymnasium.spaces.Dict(
    eye=gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8),
    room=gymnasium.spaces.Discrete(3, start=2),
    rest=gymnasium.spaces.Tuple([gymnasium.spaces.MultiDiscrete([2, 3], start=[1, 0])]),
)
JOINT = gymnasium.spaces.Dict(
    arm=gymnasium.spaces.Box(-1, 1, (2,)),
    bits=gymnasium.spaces.MultiBinary(2),
    gear=gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3, start=1)]),
)


@pytest.mark.parametrize("as_tensors", [False, True])
def test_nested_observations_actions_masks_and_the_step_before(
    make_policy: Make, as_tensors: bool
) -> None:
    config = {"previous_action": True, "previous_reward": True, "action_mask": "info"}
    policy = make_policy(NESTED, JOINT, config=config)
    plain, graph = policy.actor(2), _graph_actor(policy, 2)
    rng = np.random.default_rng(0)
    for t in range(12):
        obs: Any = stack_values(NESTED, [NESTED.sample() for _ in range(2)])
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


def test_the_state_is_fresh_at_first_and_lives_where_it_lay(make_policy: Make) -> None:
    policy = make_policy()
    graph = _graph_actor(policy)
    assert all(not tensor.any() for tensor in policy.unpack_state(graph.state, B))
    where = [tensor.data_ptr() for tensor in graph._tensors]
    for obs, reset in _episodes(5):
        graph(obs, reset)
    graph.state = policy.initial_state(B)
    assert [tensor.data_ptr() for tensor in graph._tensors] == where


def test_what_was_handed_out_is_never_overwritten(make_policy: Make) -> None:
    graph = _graph_actor(make_policy())
    (obs, _), *rest = list(_episodes(5))
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


def test_a_state_can_be_carried_between_actors_and_act(make_policy: Make) -> None:
    policy = make_policy()
    plain, graph = policy.actor(B), _graph_actor(policy)
    steps = list(_episodes(10))
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


# From here on with CUDA's own graphs.


def _on_gpu(t: Any) -> Any:
    """As tensors on the GPU; None and single bools as they are."""
    return torch.from_numpy(t).cuda() if isinstance(t, np.ndarray) else t


@pytest.mark.gpu
@pytest.mark.parametrize("as_tensors", [False, True], ids=["numpy", "tensors"])
@pytest.mark.parametrize("memory", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_captured_step_equals_the_plain_one(
    make_policy: Make, memory: dict[str, Any], as_tensors: bool
) -> None:
    policy = make_policy(**memory).to("cuda")
    plain, graph = policy.actor(B), policy.actor(B, cuda_graph=True)
    assert all(not tensor.any() for tensor in policy.unpack_state(graph.state, B))
    for obs, reset in _episodes():
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


@pytest.mark.gpu
@pytest.mark.parametrize("memory", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_gpu_policy_acts_as_a_cpu_policy_does(make_policy: Make, memory: dict[str, Any]) -> None:
    policy = make_policy(**memory)
    steps = list(_episodes(60))
    cpu = policy.actor(B)
    expected = [cpu(obs, reset) for obs, reset in steps]
    graph = policy.to("cuda").actor(B, cuda_graph=True)
    for (obs, reset), action in zip(steps, expected, strict=True):
        np.testing.assert_allclose(graph(obs, reset), action, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("deterministic", [True, False], ids=["mode", "sample"])
@pytest.mark.parametrize("action", [gymnasium.spaces.Discrete(3), None], ids=["choice", "torque"])
@pytest.mark.parametrize("memory", VARIANTS.values(), ids=VARIANTS.keys())
def test_no_way_of_acting_waits_for_the_gpu(
    make_policy: Make,
    waiting_is_an_error: Callable[[], AbstractContextManager[None]],
    memory: dict[str, Any],
    action: Any,
    deterministic: bool,
) -> None:
    policy = make_policy(**memory, **({} if action is None else {"action": action})).to("cuda")
    graph = policy.actor(B, deterministic, cuda_graph=True)
    plain, state = policy.actor(B, deterministic), policy.initial_state(B)
    steps = [(_on_gpu(obs), _on_gpu(reset)) for obs, reset in _episodes(20) if reset is not True]
    obs, reset = steps[0][0], torch.ones(B, dtype=torch.bool, device="cuda")
    plain(obs, reset)  # compiles kernels
    policy.act(obs, state, reset, deterministic)
    with waiting_is_an_error():
        for obs, reset in steps:
            graph(obs, reset)
            plain(obs, reset)
            _, state = policy.act(obs, state, reset, deterministic)
        graph(obs, reset=True)


@pytest.mark.gpu
def test_a_captured_step_of_nested_spaces_equals_the_plain_one(make_policy: Make) -> None:
    config = {"previous_action": True, "previous_reward": True, "action_mask": "info"}
    policy = make_policy(NESTED, JOINT, config=config).to("cuda")
    plain, graph = policy.actor(B), policy.actor(B, cuda_graph=True)
    for t in range(50):
        obs = stack_values(NESTED, [NESTED.sample() for _ in range(B)])
        mask = {"gear": (np.eye(3, dtype=np.int8)[np.random.default_rng(t).integers(3, size=B)],)}
        auxiliary = {"reward": np.full(B, t / 7), "action_mask": mask}
        ours, theirs = graph(obs, t % 9 == 0, **auxiliary), plain(obs, t % 9 == 0, **auxiliary)
        for a, b in zip(tree_leaves(ours), tree_leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.gpu
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


@pytest.mark.gpu
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


@pytest.mark.gpu
def test_observations_on_the_host_may_be_overwritten_at_once(make_policy: Make) -> None:
    """Vector environments hand out the same buffer again and again."""
    policy = make_policy().to("cuda")
    plain, graph = policy.actor(B), policy.actor(B, cuda_graph=True)
    buffer = torch.empty(B, 3)
    outs = []
    for obs, _ in _episodes(50):
        buffer.copy_(torch.from_numpy(obs))
        outs.append(graph(buffer))  # a tensor in: nothing waits here
    for (obs, _), action in zip(_episodes(50), outs, strict=True):
        torch.testing.assert_close(action.cpu(), torch.from_numpy(plain(obs)), atol=1e-5, rtol=1e-5)
