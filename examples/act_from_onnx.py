"""Drive an environment from an exported policy, with NumPy and ONNX Runtime alone.

    xlstm-rl export RUN --out policy.onnx
    python examples/act_from_onnx.py policy.onnx xlstm_rl/CartPoleNoVel-v1

Neither torch nor this library acts; only this library's environments need it. `module:Name-v0`
of this folder will do too, with a Dict of observations and with masks in `info`.
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
        self.masked = any(port.name == "action_mask" for port in self.session.get_inputs())
        self.state = {
            port.name: np.zeros((1, *port.shape[1:]), np.float32)
            for port in self.session.get_inputs()
            if port.name.startswith("state.")
        }

    def __call__(self, obs: Any, reset: bool, mask: Any = None) -> Any:
        """Return the action for an observation; `reset` where it is the first of an episode."""
        parts = {f"obs.{k}": v for k, v in obs.items()} if isinstance(obs, dict) else {"obs": obs}
        inputs = {name: np.asarray(part)[None] for name, part in parts.items()}
        masks = {"action_mask": np.asarray(mask, bool)[None]} if self.masked else {}
        inputs |= {"reset": np.array([reset]), **masks, **self.state}
        found = dict(zip(self.outputs, self.session.run(self.outputs, inputs), strict=True))
        self.state = {name: found[name.replace("state.", "next.", 1)] for name in self.state}
        return found["action"][0]


def play(path: str, env_id: str, episodes: int = 5) -> list[float]:
    """Return the return of each episode."""
    if env_id.startswith("xlstm_rl/"):
        import xlstm_rl.envs  # noqa: F401  (registers the ids)
    sys.path.insert(0, "")  # modules of this folder
    env, actor, returns = gymnasium.make(env_id), OnnxActor(path), []
    for episode in range(episodes):
        obs, info = env.reset(seed=episode)
        total, done, first = 0.0, False, True
        while not done:
            action = actor(obs, first, info.get("action_mask"))
            obs, reward, terminated, truncated, info = env.step(action)
            total, done, first = total + float(reward), terminated or truncated, False
        returns.append(total)
    return returns


if __name__ == "__main__":
    print(play(sys.argv[1], sys.argv[2]))
