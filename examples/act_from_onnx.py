"""Drive an environment from an exported policy, with NumPy and ONNX Runtime alone.

    xlstm-rl export RUN --out policy.onnx
    python examples/act_from_onnx.py policy.onnx xlstm_rl/CartPoleNoVel-v1

Neither torch nor this library acts. (This library's environments are looked up where it is
installed; any other Gymnasium id needs nothing of it.)
"""

import sys
from typing import Any

import gymnasium
import numpy as np
import onnxruntime


class OnnxActor:
    """Acts in one environment and remembers, as `policy.actor()` does."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.state = {
            port.name: np.zeros((1, *port.shape[1:]), np.float32)
            for port in self.session.get_inputs()
            if port.name.startswith("state.")
        }

    def __call__(self, obs: Any, reset: bool) -> Any:
        """Return the action for an observation; `reset` where it is the first of an episode."""
        inputs = {"obs": np.asarray(obs)[None], "reset": np.array([reset]), **self.state}
        found = dict(zip(self.outputs, self.session.run(self.outputs, inputs), strict=True))
        self.state = {name: found[name.replace("state.", "next.", 1)] for name in self.state}
        return found["action"][0]


def play(path: str, env_id: str, episodes: int = 5) -> list[float]:
    """Return the return of each episode."""
    if env_id.startswith("xlstm_rl/"):
        import xlstm_rl.envs  # noqa: F401  (registers the ids)
    env, actor, returns = gymnasium.make(env_id), OnnxActor(path), []
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        total, done, first = 0.0, False, True
        while not done:
            obs, reward, terminated, truncated, _ = env.step(actor(obs, first))
            total, done, first = total + float(reward), terminated or truncated, False
        returns.append(total)
    return returns


if __name__ == "__main__":
    print(play(*sys.argv[1:3]))
