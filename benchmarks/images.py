"""Training on images: where the encoder is the cost, and what sharing it saves.

    python benchmarks/images.py [--rounds 3] [--out FILE.json]

Random pictures of 84 x 84 grey pixels, 8 environments x 64 steps, 4 epochs x 4 minibatches, Nature
DQN's convolutions, one thread. The contenders take turns; counted is CPU time. Needs `.[bench]`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from xlstm_rl import RecurrentPPO

NUM_ENVS, STEPS, WIDTH = 8, 64, 128


class Pictures(gymnasium.Env[Any, Any]):
    """Random pictures, episodes of 50 steps."""

    observation_space = gymnasium.spaces.Box(0, 255, (84, 84, 1), np.uint8)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin an episode."""
        super().reset(seed=seed)
        self._left = 50
        return self._see(), {}

    def step(self, action: Any) -> Any:
        """Show the next picture."""
        self._left -= 1
        return self._see(), 1.0, self._left == 0, False, {}

    def _see(self) -> Any:
        return self.np_random.integers(0, 256, (84, 84, 1), np.uint8)


def sb3_contrib() -> Callable[[int], Any]:
    """sb3-contrib: actor and critic read one encoder and have an LSTM each."""
    from sb3_contrib import RecurrentPPO as SB3RecurrentPPO
    from stable_baselines3.common.env_util import make_vec_env

    model = SB3RecurrentPPO(
        "CnnLstmPolicy",
        make_vec_env(Pictures, n_envs=NUM_ENVS),
        n_steps=STEPS,
        batch_size=NUM_ENVS * STEPS // 4,
        n_epochs=4,
        policy_kwargs={"lstm_hidden_size": WIDTH},
        device="cpu",
        seed=0,
    )
    return lambda steps: model.learn(steps, reset_num_timesteps=False)


def ours(**policy: Any) -> Callable[[int], Any]:
    """One mLSTM block at the same sizes."""
    agent = RecurrentPPO(
        Pictures,
        env={"num_envs": NUM_ENVS},
        memory={"width": WIDTH, "pattern": "m"},
        policy={"image_encoder": "nature", **policy},
        agent={"rollout_steps": STEPS, "epochs": 4, "minibatches": 4},
        logger={"kind": "none"},
    )
    return agent.learn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    contenders = {
        "sb3-contrib, LSTM": sb3_contrib(),
        "m, shared": ours(critic="shared"),
        "m, separate, one encoder": ours(critic="separate", share_encoder=True),
        "m, separate": ours(critic="separate"),
    }
    per_rollout = NUM_ENVS * STEPS
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(arguments.rounds + 1):
        for name, learn in contenders.items():
            began = time.process_time()
            learn(per_rollout)
            if turn:  # the first one warms up
                speeds[name].append(per_rollout / (time.process_time() - began))
    base = speeds["sb3-contrib, LSTM"]
    print(f"{'':28}{'steps/s':>9}{'ratio':>8}")
    for name, values in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
        print(f"{name:28}{statistics.median(values):9.0f}{ratio:8.2f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(speeds, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
