from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.policy import Policy

T, B = 9, 3
OBSERVATIONS = {
    "Box": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    "Discrete": spaces.Discrete(5, start=2),
    "Dict": spaces.Dict(a=spaces.Box(-1.0, 1.0, (2,)), b=spaces.MultiBinary(3)),
}
ACTIONS = {
    "Discrete": spaces.Discrete(4, start=-1),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3], start=[1, 5]),
    "MultiBinary": spaces.MultiBinary((2, 2)),
    "Box": spaces.Box(-2.0, 6.0, (2, 2), np.float32),
    "Dict": spaces.Dict(x=spaces.Discrete(3), y=spaces.Box(0.0, 1.0, (2,), np.float64)),
}


class Space(gymnasium.Env[Any, Any]):
    """Observes samples; nothing else matters."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        self.observation_space, self.action_space = observation_space, action_space


def policy_of(observation: str, action: str, memory: Any = None, **options: Any) -> Policy:
    torch.manual_seed(0)
    agent = RecurrentPPO(
        lambda: Space(OBSERVATIONS[observation], ACTIONS[action]),
        env={"num_envs": 4, "vectorization": "sync"},
        memory=memory or {"pattern": "ms", "width": 16, "num_heads": 2},
        policy=options,
        normalization={"observation": observation == "Box", "reward": True},
        logger={"kind": "none"},
    )
    policy = agent.policy
    with torch.no_grad():  # outputs that tell actions apart
        policy.network.action_head.output.weight.mul_(50.0)
    return policy


def act(policy: Policy, masked: bool = False) -> dict[str, Any]:
    """Act T steps with resets inside, and write down what went in and came out."""
    rng = np.random.default_rng(0)
    space = policy.observation_space
    space.seed(0)
    reset = rng.random((B, T)) < 0.25
    reset[:, 0] = [True, False, True]
    reward = rng.normal(size=(B, T)).astype(np.float32)
    width = policy.network.distribution.num_outputs
    masks = torch.from_numpy(rng.random((B, T, width)) < 0.7)
    masks[..., 0] = True
    state = policy.initial_state(B)
    for _ in range(3):  # a past of some steps
        _, state = policy.act(
            batch(space, [space.sample() for _ in range(B)]),
            state,
            reward=reward[:, 0],
            action_mask=masks[:, 0] if masked else None,
        )
    seen: dict[str, Any] = {"state": state, "reset": reset, "reward": reward, "mask": masks}
    steps: list[Any] = []
    params: list[Any] = []
    distribution = policy.network.distribution
    sample = distribution.sample

    def recorded(own: Any, generator: Any = None) -> Any:
        action = sample(own, generator)
        params.append(distribution.log_prob_and_entropy(own, action))
        return action

    distribution.sample = recorded  # type: ignore[method-assign]
    values = []
    for t in range(T):
        obs = batch(space, [space.sample() for _ in range(B)])
        values.append(policy.value(obs, state, reset[:, t], reward[:, t]))
        action, state = policy.act(
            *(obs, state, reset[:, t], False),
            reward=reward[:, t],
            action_mask=masks[:, t] if masked else None,
        )
        steps.append((obs, action))
    del distribution.sample
    seen["after"], seen["value"] = state, np.stack(values, 1)
    seen["obs"] = batch_time(space, [obs for obs, _ in steps])
    seen["action"] = batch_time(policy.action_space, [action for _, action in steps])
    seen["log_prob"], seen["entropy"] = (torch.stack(x, 1) for x in zip(*params, strict=True))
    return seen


def batch(space: Any, samples: list[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: batch(part, [one[name] for one in samples]) for name, part in space.items()}
    return np.stack([np.asarray(one) for one in samples])


def batch_time(space: Any, steps: list[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {
            name: batch_time(part, [one[name] for one in steps]) for name, part in space.items()
        }
    return np.stack(steps, 1)


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", ["Box", "Dict"])
@pytest.mark.each_value
def test_a_sequence_says_what_acting_did(observation: str, action: str, critic: str) -> None:
    options = {"critic": critic, "previous_action": True, "previous_reward": True}
    if action in ("Box", "Dict"):
        options["action_distribution"] = {"initial_log_std": -3.0}  # nothing is clipped
    policy = policy_of(observation, action, **options)
    seen = act(policy)
    found = policy.evaluate_actions(
        seen["obs"], seen["action"], seen["state"], seen["reset"], seen["reward"]
    )
    for name in ("log_prob", "entropy", "value"):
        expected = torch.as_tensor(seen[name])
        assert getattr(found, name).shape == (B, T)
        torch.testing.assert_close(getattr(found, name).detach(), expected, rtol=1e-4, atol=2e-4)
    for key, one in found.state.flatten_keys().items():
        torch.testing.assert_close(
            one.detach(), seen["after"].flatten_keys()[key], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("kind", ["lstm", "mlp"])
def test_every_observation_and_memory_is_evaluated(observation: str, kind: str) -> None:
    policy = policy_of(observation, "Discrete", {"kind": kind, "width": 16}, first_step=True)
    seen = act(policy)
    found = policy.evaluate_actions(seen["obs"], seen["action"], seen["state"], seen["reset"])
    torch.testing.assert_close(found.log_prob.detach(), seen["log_prob"], rtol=1e-4, atol=1e-4)


def test_masked_choices_have_no_probability_in_a_sequence_either() -> None:
    policy = policy_of("Box", "Discrete", action_mask="info")
    seen = act(policy, masked=True)
    args = (seen["obs"], seen["action"], seen["state"], seen["reset"])
    found = policy.evaluate_actions(*args, action_mask=seen["mask"])
    torch.testing.assert_close(found.log_prob.detach(), seen["log_prob"], rtol=1e-4, atol=1e-4)
    with pytest.raises(
        ValueError, match=r"action_mask has shape \[3, 9, 3\], expected \[3, 9, 4\]"
    ):
        policy.evaluate_actions(*args, action_mask=seen["mask"][..., :3])
    with pytest.raises(ValueError, match="was given no action mask"):
        policy.evaluate_actions(*args)


def test_squashed_actions_are_evaluated_at_the_density_of_the_change_of_variables() -> None:
    policy = policy_of("Box", "Box", action_distribution={"bounds": "tanh"})
    seen = act(policy)
    found = policy.evaluate_actions(seen["obs"], seen["action"], seen["state"], seen["reset"])
    torch.testing.assert_close(found.log_prob.detach(), seen["log_prob"], rtol=1e-2, atol=1e-2)
    edge = np.broadcast_to(policy.action_space.high, seen["action"].shape)
    at_bounds = policy.evaluate_actions(seen["obs"], edge, seen["state"], seen["reset"])
    assert bool(torch.isfinite(at_bounds.log_prob).all())


def test_gradients_flow_to_the_weights() -> None:
    policy = policy_of("Box", "Discrete")
    seen = act(policy)
    found = policy.evaluate_actions(seen["obs"], seen["action"])
    (found.log_prob.sum() + found.value.sum()).backward()
    assert all(p.grad is not None for p in policy.network.parameters())


def test_probabilities_of_a_single_step_sum_to_one() -> None:
    policy = policy_of("Box", "Discrete")
    obs = np.zeros((4, 1, 2, 3), np.float32)
    found = policy.evaluate_actions(obs, np.array([[-1], [0], [1], [2]]))
    assert found.log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_wrong_shapes_and_choices_are_one_line() -> None:
    policy = policy_of("Box", "Discrete", critic="separate")
    seen = act(policy)
    obs, action, state = seen["obs"], seen["action"], seen["state"]
    no_critic = policy.actor(num_envs=B).state
    for args, message in (
        ((obs[0], action), r"obs has shape \[9, 2, 3\], expected \[9, 2, 2, 3\]"),
        ((obs, action[:, 1:]), r"actions has shape \[3, 8\], expected \[3, 9\]"),
        ((obs, action + 4), r"actions is \d, which is not in its space Discrete\(4, start=-1\)"),
        ((obs, action, state, [True] * 3), r"reset has shape \[3\] .*expected bools \[3, 9\]"),
        ((obs, action, no_critic), r"the state lacks the critic's memory"),
        ((obs, action, policy.initial_state(2)), r"state has batch size \[2\]"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            policy.evaluate_actions(*args)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="lacks the critic's memory"):
        policy.value(obs[:, 0], no_critic)
    with pytest.raises(ValueError, match="value takes a batch"):
        policy.value(obs[0, 0])


def test_a_value_is_of_the_kind_of_its_observation() -> None:
    policy = policy_of("Box", "Discrete", critic="shared")
    obs = np.zeros((2, 2, 3), np.float32)
    one, other = policy.value(obs), policy.value(torch.from_numpy(obs))
    assert isinstance(one, np.ndarray) and isinstance(other, torch.Tensor)
    assert one.shape == (2,) and not other.requires_grad
    np.testing.assert_array_equal(one, other.numpy())


@pytest.mark.parametrize("num_envs", [None, 3])
def test_the_state_of_an_actor_goes_through_a_file_without_pickle(
    num_envs: Any, tmp_path: Any
) -> None:
    policy = policy_of("Box", "Discrete", previous_action=True)
    actor, again, third = (policy.actor(num_envs) for _ in range(3))
    obs = np.ones((2, 3) if num_envs is None else (3, 2, 3), np.float32)
    for _ in range(3):
        actor(obs)
    torch.save(actor.state, tmp_path / "state.pt")
    again.state = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.save(actor.state.to_dict(), tmp_path / "plain.pt")
    third.state = torch.load(tmp_path / "plain.pt", weights_only=True)
    for one in (again, third):
        assert (one.state == actor.state).all()
    np.testing.assert_array_equal(actor(obs), again(obs))


def test_a_loaded_policy_values_as_the_saved_one(tmp_path: Any) -> None:
    agent = RecurrentPPO("CartPole-v1", memory={"width": 16}, logger={"kind": "none"})
    loaded = load_policy(agent.save(tmp_path / "run"))
    obs = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(loaded.value(obs), agent.policy.value(obs))
