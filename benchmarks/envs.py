"""Steps per second of the vector forms, with random actions, no agent and one thread.

    python benchmarks/envs.py --num-envs 16 --seconds 1
    python benchmarks/envs.py --num-envs 4096 --forms native [--out FILE.json]
    python benchmarks/envs.py --num-envs 4096 --forms native --device cuda

Each form is measured several times in turn, so that a slow moment of the machine hits all of them;
the median is printed. With a device other than the CPU, the tasks written over tensors are measured
there, tensors in and tensors out.
"""

import argparse
import json
import os
import platform
import time
from statistics import median
from typing import Any

import gymnasium as gym
import torch
from gymnasium.vector import VectorEnv

from xlstm_rl.envs import EnvConfig, make_vector_env
from xlstm_rl.envs.config import Vectorization

FORMS: tuple[Vectorization, ...] = ("native", "sync", "async")
TASKS = (
    "xlstm_rl/MemoryChain-v0",
    "xlstm_rl/TMaze-v0",
    "xlstm_rl/RepeatPrevious-v0",
    "xlstm_rl/AssociativeRecall-v0",
    "xlstm_rl/Parity-v0",
    "xlstm_rl/NavigateAndReturn-v0",
)
OTHERS = ("xlstm_rl/CartPoleNoVel-v1", "xlstm_rl/PendulumNoVel-v1", "CartPole-v1")


def steps_per_second(env: VectorEnv[Any, Any, Any], seconds: float) -> float:
    actions = [env.action_space.sample() for _ in range(64)]
    device = torch.device(getattr(env, "device", "cpu"))
    if getattr(env, "tensors", False):
        actions = [torch.from_numpy(action).to(device) for action in actions]
    env.reset(seed=0)
    for action in actions:
        env.step(action)  # warm-up
    wait(device)
    steps = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for action in actions:
            env.step(action)
        wait(device)
        steps += len(actions) * env.num_envs
    return steps / elapsed


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was asked for."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0, help="per form and repetition")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--device", default="cpu", help="of the tasks over tensors")
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)

    machine = (
        f"{args.num_envs} environments, {platform.machine()} with {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}, torch {torch.__version__}, {args.device}"
    )
    print(machine)
    print(
        f"| {'steps per second':<30} | " + " | ".join(f"{form:>10}" for form in args.forms) + " |"
    )
    rows: dict[str, dict[str, list[float]]] = {}
    on_device: dict[str, Any] = {"device": args.device, "tensors": True}
    for env_id in TASKS + (OTHERS if args.device == "cpu" else ()):
        has_native = gym.spec(env_id).vector_entry_point is not None
        kwargs = {} if args.device == "cpu" else on_device
        forms = {
            form: make_vector_env(EnvConfig(env_id, args.num_envs, form, kwargs=kwargs))
            for form in args.forms
            if has_native or form != "native"
        }
        rates: dict[str, list[float]] = {form: [] for form in forms}
        for _ in range(args.repeats):
            for form, env in forms.items():
                rates[form].append(steps_per_second(env, args.seconds))
        for env in forms.values():
            env.close()
        cells = (
            f"{median(rates[form]):10,.0f}" if form in rates else " " * 10 for form in args.forms
        )
        print(f"| {env_id:<30} | " + " | ".join(cells) + " |", flush=True)
        if rates:
            rows[env_id] = rates
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "steps_per_second": rows}, file, indent=1)


if __name__ == "__main__":
    main()
