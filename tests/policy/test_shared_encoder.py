"""A separate critic that reads the actor's encoder."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.config import ConfigError


class Pictures(gymnasium.Env[Any, Any]):
    """Random pictures, and 1 for the action that their brightness asks for."""

    observation_space = gymnasium.spaces.Box(0, 255, (16, 16, 1), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._left = 7
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self._left -= 1
        reward = float(int(action) == int(self._shown.mean() > 127))
        return self._see(), reward, False, self._left == 0, {}

    def _see(self) -> Any:
        bright = self.np_random.integers(0, 2) * 128
        self._shown = self.np_random.integers(bright, bright + 128, (16, 16, 1)).astype(np.uint8)
        return self._shown


def _agent(**policy: Any) -> RecurrentPPO:
    return RecurrentPPO(
        Pictures,
        env={"num_envs": 4},
        memory={"kind": "gru", "width": 16},
        policy={"critic": "separate", **policy},
        agent={"rollout_steps": 16, "minibatches": 2, "epochs": 2},
        logger={"kind": "none"},
    )


def test_there_is_one_encoder_and_both_losses_train_it() -> None:
    agent, two = _agent(share_encoder=True), _agent()
    network: Any = agent.policy.network
    encoder = sum(p.numel() for p in network.trunk.encoder.parameters())
    assert sum(p.numel() for p in two.parameters) - sum(p.numel() for p in agent.parameters) == (
        encoder
    )
    x = torch.randint(0, 256, (2, 3, 16, 16, 1), dtype=torch.uint8)
    calls: list[int] = []
    with network.trunk.encoder.register_forward_hook(lambda *_: calls.append(1)):
        params, value, _ = network(x, network.initial_tensors(2), None)
    assert len(calls) == 1
    weight = next(network.trunk.encoder.parameters())
    for loss in (params, value):
        (gradient,) = torch.autograd.grad(loss.sum(), weight, retain_graph=True)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("shared", [True, False])
def test_rollouts_hold_the_values_that_training_sees(shared: bool) -> None:
    agent = _agent(share_encoder=shared)
    agent.learn(64)
    rollout = agent._make_collector().collect()
    data, network = rollout.data, agent.policy.network
    assert data["truncated"].any()
    with torch.no_grad():
        _, value, _ = network(data["observation"], rollout.segment_states[0], data["reset"])
    torch.testing.assert_close(value, data["value"], rtol=1e-5, atol=1e-5)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    agent = _agent(share_encoder=True)
    agent.learn(64)
    policy = load_policy(agent.save(tmp_path / "run"))
    obs = np.zeros((4, 16, 16, 1), np.uint8)
    network: Any = policy.network
    assert network.critic_trunk.encoder is None
    state = agent.policy.initial_state(4)
    for _ in range(3):
        ours, state = agent.policy.act(obs, state)
        theirs, _ = policy.act(obs, state)
        assert ours.shape == theirs.shape == (4,)
    pairs = zip(agent.parameters, network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_without_a_separate_critic_there_is_nothing_to_share() -> None:
    with pytest.raises(ConfigError, match="share_encoder"):
        _agent(critic="shared", share_encoder=True)
