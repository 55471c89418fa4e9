from typing import Any

import gymnasium
import pytest
import torch
from gymnasium.vector import SyncVectorEnv

from xlstm_rl import MemoryConfig, RecurrentPPO, evaluate
from xlstm_rl.config import ConfigError
from xlstm_rl.envs import EnvConfig

SMALL: dict[str, Any] = {
    "memory": MemoryConfig(width=16, num_heads=2),
    "agent": {"rollout_steps": 8, "epochs": 1, "minibatches": 2},
    "logger": {"kind": "none"},
}


def _cartpole() -> Any:
    return gymnasium.make("CartPole-v1")


def test_an_id_beats_the_id_of_the_section() -> None:
    agent = RecurrentPPO("CartPole-v1", env=EnvConfig(num_envs=4), **SMALL)
    assert agent.config.env.id == "CartPole-v1" and agent.env.num_envs == 4


def test_a_callable_makes_the_environments() -> None:
    agent = RecurrentPPO(_cartpole, env={"num_envs": 2}, **SMALL).learn(32)
    assert agent.env.num_envs == 2 and agent.steps_done == 32
    assert len(evaluate(agent.policy, _cartpole, episodes=2).returns) == 2
    assert evaluate(agent.policy, episodes=2) == evaluate(agent.policy, _cartpole, episodes=2)


def test_a_ready_vector_environment_is_used_as_it_is() -> None:
    env = SyncVectorEnv([_cartpole] * 6)
    agent = RecurrentPPO(env, **SMALL).learn(48)
    assert agent.env is env and agent.config.env.num_envs == 6 and agent.steps_done == 48


def test_continuous_actions_are_learned_with() -> None:
    agent = RecurrentPPO("Pendulum-v1", env={"num_envs": 2}, **SMALL).learn(64)
    assert len(evaluate(agent.policy, episodes=1).returns) == 1


def test_a_misspelt_section_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"epoch.*did you mean"):
        RecurrentPPO("CartPole-v1", agent={"epoch": 4})


def test_without_a_logger_nothing_is_written(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    RecurrentPPO("CartPole-v1", env={"num_envs": 2}, **SMALL).learn(32)
    assert list(tmp_path.iterdir()) == []


def test_the_weights_of_a_seed_do_not_depend_on_the_threads_of_the_shell() -> None:
    def weights(threads: int) -> torch.Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            agent = RecurrentPPO("xlstm_rl/CartPoleNoVel-v1", logger={"kind": "none"})
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        return torch.cat([p.detach().flatten() for p in agent.parameters])

    assert torch.equal(weights(1), weights(2))
