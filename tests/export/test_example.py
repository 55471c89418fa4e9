"""The examples that act without this library play the episodes that the policy plays."""

import importlib.util
import subprocess
from pathlib import Path

import gymnasium
import numpy as np

import xlstm_rl.envs
from xlstm_rl.export import export_policy
from xlstm_rl.export.step import ExportedStep
from xlstm_rl.kernels.native.compilation import find_compiler

from .conftest import make_policy

ENV = "xlstm_rl/CartPoleNoVel-v1"
EXAMPLES = Path(__file__).parents[2] / "examples"
assert xlstm_rl.envs


def test_numpy_and_onnxruntime_play_the_policy_s_episodes(tmp_path):
    spec = importlib.util.spec_from_file_location("act_from_onnx", EXAMPLES / "act_from_onnx.py")
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


def test_c_balances_the_pole_as_long_as_the_policy_does(tmp_path):
    env = gymnasium.make(ENV)
    policy = make_policy(env.observation_space, env.action_space, {"pattern": "m"}, {})
    actor, expected = policy.actor(), []
    for episode in range(5):
        obs, _ = env.reset()
        start = np.array([0, 0, 0.02 * (episode - 2), 0])
        env.unwrapped.state = start
        obs, steps, done, reset = start[[0, 2]].astype(np.float32), 0, False, True
        while not done:
            obs, _, terminated, truncated, _ = env.step(actor(obs, reset))
            steps, done, reset = steps + 1, terminated or truncated, False
        expected.append(steps)
    export_policy(policy, tmp_path / "policy.c", "c")
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", f"-I{tmp_path}"]
    source, binary = str(EXAMPLES / "act_from_c.c"), str(tmp_path / "act")
    subprocess.run([*find_compiler(), *strict, source, "-o", binary, "-lm"], check=True)
    played = subprocess.run([binary, str(tmp_path / "policy.weights")], capture_output=True)
    assert [int(line) for line in played.stdout.split()] == expected
    assert len(set(expected)) > 1
    assert subprocess.run([binary, str(tmp_path / "none")], capture_output=True).returncode == 1


def test_the_examples_are_short():
    for name in ("act_from_onnx.py", "act_from_c.c", "browser/index.html"):
        assert len((EXAMPLES / name).read_text("utf-8").splitlines()) <= 60


def test_the_browser_page_needs_no_other_host_and_feeds_every_input():
    """What it names is what the export has; that it acts was seen in headless Chromium."""
    page = (EXAMPLES / "browser" / "index.html").read_text("utf-8")
    assert "http" not in page
    env = gymnasium.make(ENV)
    policy = make_policy(env.observation_space, env.action_space, {"pattern": "m"}, {})
    ports = ExportedStep(policy).ports
    assert [p.name for p in (*ports.observation, *ports.others)] == ["obs", "reset"]
    assert [p.name for p in ports.action] == ["action"]
    for text in ("{ obs, reset:", "out.action.data", 'startsWith("state.")', '"state.", "next."'):
        assert text in page
