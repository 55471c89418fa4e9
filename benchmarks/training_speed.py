"""Training speed against sb3-contrib's RecurrentPPO, side by side in one run.

    python benchmarks/training_speed.py [--pairs 5] [--out FILE.json]

Both train on CartPole without velocities: 16 environments x 128 steps, hidden size 128, 4 epochs x
4 minibatches, one thread. The two take turns, so that a change of the machine's speed meets both.
Needs the extra `bench`.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from sb3_contrib import RecurrentPPO as SB3RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

import xlstm_rl.envs  # noqa: F401 - registers the environment
from xlstm_rl import RecurrentPPO

ENV = "xlstm_rl/CartPoleNoVel-v1"
NUM_ENVS, STEPS, WIDTH = 16, 128, 128
PER_ROLLOUT = NUM_ENVS * STEPS


def sb3_contrib() -> Callable[[int], Any]:
    """sb3-contrib with its own defaults: separate critic LSTM, heads of 64 x 64."""
    model = SB3RecurrentPPO(
        "MlpLstmPolicy",
        make_vec_env(ENV, n_envs=NUM_ENVS),
        n_steps=STEPS,
        batch_size=PER_ROLLOUT // 4,
        n_epochs=4,
        policy_kwargs={"lstm_hidden_size": WIDTH},
        device="cpu",
        seed=0,
    )
    return lambda steps: model.learn(steps, reset_num_timesteps=False)


def ours(critic: str = "shared", **memory: Any) -> Callable[[int], Any]:
    """Our agent at the same sizes."""
    agent = RecurrentPPO(
        ENV,
        env={"num_envs": NUM_ENVS},
        memory={"width": WIDTH, **memory},
        policy={"critic": critic},
        agent={"rollout_steps": STEPS, "epochs": 4, "minibatches": 4},
        logger={"kind": "none"},
    )
    return agent.learn


def steps_per_second(learn: Callable[[int], Any], rollouts: int) -> float:
    """Time a number of whole rollouts with their updates."""
    began = time.perf_counter()
    learn(rollouts * PER_ROLLOUT)
    return rollouts * PER_ROLLOUT / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="turns of every contender")
    parser.add_argument("--rollouts", type=int, default=2, help="rollouts in a turn")
    parser.add_argument("--out", help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    contenders = {
        "sb3-contrib LSTM": sb3_contrib(),
        "one mLSTM block": ours(pattern="m"),
        "one mLSTM block, separate critic": ours("separate", pattern="m"),
        "one sLSTM block": ours(pattern="s"),
        "mLSTM and sLSTM block": ours(pattern="ms"),
        "LSTM": ours(kind="lstm"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for learn in contenders.values():
        steps_per_second(learn, 1)  # warm-up: allocator, lazy imports
    for _ in range(arguments.pairs):
        for name, learn in contenders.items():
            speeds[name].append(steps_per_second(learn, arguments.rollouts))
    base = speeds["sb3-contrib LSTM"]
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread")
    print(f"{'':34}{'steps/s':>9}{'ratio':>8}{'min':>7}{'max':>7}")
    rows = {}
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(values, base, strict=True)]
        rows[name] = {"steps_per_second": values, "ratio_to_sb3_contrib": ratios}
        print(
            f"{name:34}{statistics.median(values):9.0f}{statistics.median(ratios):8.2f}"
            f"{min(ratios):7.2f}{max(ratios):7.2f}"
        )
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
