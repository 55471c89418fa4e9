"""Agents whose environments answer tensors learn, save, load and are evaluated."""

from typing import Any

import pytest

from xlstm_rl import MemoryConfig, RecurrentA2C, RecurrentPPO, evaluate, load_policy
from xlstm_rl.envs import EnvConfig

SMALL: dict[str, Any] = {
    "env": EnvConfig("xlstm_rl/MemoryChain-v0", 4, kwargs={"length": 3, "tensors": True}),
    "memory": MemoryConfig(width=16, num_heads=2),
    "logger": {"kind": "none"},
}
AGENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ppo": (RecurrentPPO, {"rollout_steps": 8, "epochs": 1, "minibatches": 2}),
    "a2c": (RecurrentA2C, {"rollout_steps": 8}),
}


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("algo", AGENTS)
def test_training_saving_loading_and_evaluating(
    algo: str, limit: int | None, tmp_path: Any
) -> None:
    kind, options = AGENTS[algo]
    env = EnvConfig(
        "xlstm_rl/MemoryChain-v0",
        4,
        kwargs={"length": 3, "tensors": True},
        max_episode_steps=limit,
    )
    agent = kind(**{**SMALL, "env": env}, agent=options)
    before = [p.detach().clone() for p in agent.parameters]
    agent.learn(64)
    assert agent.env.tensors and agent.steps_done == 64
    assert any((a != b).any() for a, b in zip(before, agent.parameters, strict=True))
    agent.save(tmp_path / "run")
    policy = load_policy(tmp_path / "run")
    result = evaluate(policy, episodes=5)
    assert result.lengths == [limit or 4] * 5
    assert result.returns == evaluate(agent.policy, episodes=5).returns


@pytest.mark.gpu
@pytest.mark.parametrize("algo", AGENTS)
def test_on_a_gpu_all_that_is_trained_on_lies_there(algo: str) -> None:
    kind, options = AGENTS[algo]
    env = EnvConfig("xlstm_rl/MemoryChain-v0", 4, kwargs={"length": 3}, max_episode_steps=3)
    agent = kind(**{**SMALL, "env": env}, agent=options, device="cuda").learn(64)
    assert agent.steps_done == 64
    assert agent.env.tensors and agent.env.device.type == "cuda"
    assert agent.env.context.is_cuda and agent.env.elapsed.is_cuda
    rollout = agent._collector.collect()
    assert agent._collector._observation.is_cuda
    assert all(column.is_cuda for column in rollout.data.values(True, True))
    assert all(tensor.is_cuda for segment in rollout.segment_states for tensor in segment)
