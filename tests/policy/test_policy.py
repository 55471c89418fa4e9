from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl.memory import MemoryConfig
from xlstm_rl.memory.config import MEMORIES
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

BOX = gymnasium.spaces.Box(-5, 5, (3,), np.float32)
TORQUE = gymnasium.spaces.Box(-2, 2, (1,), np.float32)


def _policy(
    observation: gymnasium.Space[Any] = BOX,
    action: gymnasium.Space[Any] = TORQUE,
    critic: str = "shared",
    **memory: Any,
) -> Policy:
    blocks = {} if "kind" in memory else {"pattern": "ms", "num_heads": 2}
    config = MemoryConfig(**{"width": 16, **blocks, **memory})
    network = PolicyConfig(head_width=8, critic=critic)  # type: ignore[arg-type]
    policy = Policy(observation, action, config, network, NormalizationConfig())
    with torch.no_grad():
        for weight in policy.network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return policy


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_memory_changes_the_action_and_reset_forgets(critic: str) -> None:
    policy, rng = _policy(critic=critic), np.random.default_rng(0)
    obs = rng.normal(size=(2, 3)).astype(np.float32)
    first, fresh = policy.act(obs)
    state = fresh
    for _ in range(5):
        _, state = policy.act(rng.normal(size=(2, 3)).astype(np.float32), state)
    later, _ = policy.act(obs, state)
    assert np.abs(later - first).min() > 1e-4
    again, after = policy.act(obs, state, reset=np.array([True, False]))
    np.testing.assert_allclose(again[0], first[0], atol=1e-6)
    np.testing.assert_array_equal(again[1], later[1])
    same = after[0] == fresh[0]
    assert same.all()


@pytest.mark.parametrize("kind", list(MEMORIES.classes))
@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_every_memory_carries_its_state_from_step_to_step(kind: str, critic: str) -> None:
    policy, rng = _policy(critic=critic, kind=kind), np.random.default_rng(0)
    sequence = rng.normal(size=(2, 6, 3)).astype(np.float32)
    state = None
    for t in range(6):
        action, state = policy.act(sequence[:, t], state)
        assert tuple(state.batch_size) == (2,)
    with torch.no_grad():
        x = policy.normalizer(torch.from_numpy(sequence))
        params, _, tensors = policy.network(x, policy.network.initial_tensors(2), None)
    distribution = policy.network.distribution
    expected = distribution.to_env(distribution.mode(params[:, -1]))
    np.testing.assert_allclose(action, expected.numpy(), atol=1e-5)
    assert state is not None
    for a, b in zip(policy.unpack_state(state, 2), tensors, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_numpy_in_numpy_out_and_tensors_in_tensors_out() -> None:
    policy = _policy()
    array, _ = policy.act(np.zeros((4, 3), np.float32))
    tensor, _ = policy.act(torch.zeros(4, 3))
    assert isinstance(array, np.ndarray) and array.shape == (4, 1)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(array, tensor.numpy())
    assert TORQUE.contains(array[0])


def test_the_state_handed_in_is_left_alone() -> None:
    policy = _policy()
    _, state = policy.act(np.ones((2, 3), np.float32))
    before = state.clone()
    policy.act(np.ones((2, 3), np.float32), state, reset=True)
    assert (state == before).all()


def test_the_actor_of_one_environment_equals_act() -> None:
    policy, rng = _policy(action=gymnasium.spaces.Discrete(3)), np.random.default_rng(0)
    actor, state = policy.actor(), None
    for t in range(10):
        obs = rng.normal(size=3).astype(np.float32)
        batch, state = policy.act(obs[None], state, reset=t in (0, 6))
        action = actor(obs, reset=t in (0, 6))
        assert action == batch[0] and gymnasium.spaces.Discrete(3).contains(action)


def test_the_actor_of_a_vector_environment_takes_a_reset_per_row() -> None:
    policy = _policy()
    actor = policy.actor(num_envs=2)
    obs = np.ones((2, 3), np.float32)
    first = actor(obs, reset=True)
    actor(obs)
    mixed = actor(obs, reset=np.array([True, False]))
    np.testing.assert_allclose(mixed[0], first[0], atol=1e-6)
    assert abs(mixed[1] - first[1]) > 1e-5


def test_discrete_observations_and_shifted_actions() -> None:
    policy = _policy(gymnasium.spaces.Discrete(4, start=3), gymnasium.spaces.Discrete(2, start=7))
    action, _ = policy.act(np.array([3, 6]))
    assert action.shape == (2,) and set(action.tolist()) <= {7, 8}


def test_stochastic_actions_follow_their_generator() -> None:
    policy, obs = _policy(), np.zeros((3, 3), np.float32)

    def draw(seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        return policy.act(obs, deterministic=False, generator=generator)[0]

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"obs": np.zeros(3, np.float32)}, r"obs has shape \[3\], expected \[B, 3\].*actor\(\)"),
        ({"obs": np.zeros((2, 4), np.float32)}, r"obs has shape \[2, 4\], expected \[B, 3\]"),
        (
            {"obs": np.zeros((2, 3), np.float32), "reset": np.array([1, 0])},
            r"reset has shape \[2\] and dtype torch.int64, expected a bool",
        ),
        (
            {"obs": np.zeros((2, 3), np.float32), "reset": np.array([True] * 3)},
            r"reset has shape \[3\].*bools \[2\]",
        ),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _policy().act(**arguments)


def test_a_state_of_another_batch_or_policy_is_refused() -> None:
    policy = _policy()
    obs = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"batch size \[5\].*\[2\]"):
        policy.act(obs, policy.initial_state(5))
    with pytest.raises(ValueError, match=r"\['critic_memory', 'memory'\].*\['memory'\]"):
        policy.act(obs, _policy(critic="separate").initial_state(2))


def test_spaces_that_no_policy_handles_are_refused() -> None:
    with pytest.raises(ValueError, match="Text"):
        _policy(gymnasium.spaces.Text(5))
    graph = gymnasium.spaces.Tuple([TORQUE, gymnasium.spaces.Graph(BOX, None)])
    with pytest.raises(ValueError, match=r"its part '1' is Graph.*only Discrete, MultiDiscrete"):
        _policy(BOX, graph)
