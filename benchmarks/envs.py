"""Steps per second of the vector forms, with random actions and no agent.

    python benchmarks/envs.py --num-envs 16 --seconds 2

Each form is measured several times in turn, so that a slow moment of the machine hits all of them;
the median is printed.
"""

import argparse
import os
import platform
import time
from statistics import median
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from xlstm_rl.envs import EnvConfig, make_vector_env
from xlstm_rl.envs.config import Vectorization

FORMS: tuple[Vectorization, ...] = ("native", "sync", "async")
IDS = (
    "xlstm_rl/CartPoleNoVel-v1",
    "xlstm_rl/MemoryChain-v0",
    "xlstm_rl/PendulumNoVel-v1",
    "CartPole-v1",
)


def steps_per_second(env: VectorEnv[Any, Any, Any], seconds: float) -> float:
    actions = [env.action_space.sample() for _ in range(64)]
    env.reset(seed=0)
    steps = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for action in actions:
            env.step(action)
        steps += len(actions) * env.num_envs
    return steps / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0, help="per form and repetition")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    print(
        f"{args.num_envs} environments, {platform.machine()} with {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}"
    )
    print(f"| {'steps per second':<26} | " + " | ".join(f"{form:>8}" for form in FORMS) + " |")
    for env_id in IDS:
        has_native = gym.spec(env_id).vector_entry_point is not None
        forms = {
            form: make_vector_env(EnvConfig(env_id, args.num_envs, form))
            for form in FORMS
            if has_native or form != "native"
        }
        rates: dict[Vectorization, list[float]] = {form: [] for form in forms}
        for _ in range(args.repeats):
            for form, env in forms.items():
                rates[form].append(steps_per_second(env, args.seconds))
        for env in forms.values():
            env.close()
        cells = (f"{median(rates[form]):8,.0f}" if form in rates else " " * 8 for form in FORMS)
        print(f"| {env_id:<26} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
