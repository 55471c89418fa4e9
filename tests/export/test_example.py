"""The example that acts with ONNX Runtime and NumPy plays the episodes that the policy plays."""

import importlib.util
from pathlib import Path

import gymnasium

import xlstm_rl.envs
from xlstm_rl.export import export_policy

from .conftest import make_policy

ENV = "xlstm_rl/CartPoleNoVel-v1"
EXAMPLE = Path(__file__).parents[2] / "examples" / "act_from_onnx.py"
assert xlstm_rl.envs


def test_it_plays_the_policy_s_episodes(tmp_path):
    spec = importlib.util.spec_from_file_location("act_from_onnx", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    env = gymnasium.make(ENV)
    policy = make_policy(env.observation_space, env.action_space, {"kind": "gru"}, {})
    actor, expected = policy.actor(), []
    for episode in range(3):
        obs, _ = env.reset(seed=episode)
        action, total, done = actor(obs, reset=True), 0.0, False
        while not done:
            obs, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
            action = actor(obs)
        expected.append(total)
    path = export_policy(policy, tmp_path / "policy.onnx")
    assert example.play(str(path), ENV, 3) == expected
    assert len(set(expected)) > 1
