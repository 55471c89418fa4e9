"""Cost of acting: does a step get slower, or the state larger, as an episode goes on?

    python benchmarks/acting.py [--steps 100000] [--inplace | --actor | --cuda-graph]

A policy acts in 16 environments for 10 steps and for 100,000. Then steps from the early and from
the late state are timed in turn, so that a change of the machine's speed meets both. A step is the
bare `policy.step`, with `--inplace` into the same state, with `--actor` the call of a
`policy.actor()`, NumPy in and out, with `--cuda-graph` a replay of it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch

from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Actor, Policy, PolicyConfig
from xlstm_rl.policy.actor_critic import StateTensors


class Eager:
    """Acts without an actor: its state are bare tensors."""

    def __init__(self, policy: Policy, num_envs: int, inplace: bool) -> None:
        self.policy, self.inplace = policy, inplace
        self.tensors = policy.network.initial_tensors(num_envs, policy.device, critic=False)

    def __call__(self, observation: torch.Tensor) -> None:
        """Take one step."""
        _, self.tensors = self.policy.step(observation, self.tensors, None, inplace=self.inplace)


def leaves_of(acting: Eager | Actor, num_envs: int) -> StateTensors:
    if isinstance(acting, Eager):
        return acting.tensors
    return acting.policy.unpack_state(acting.state, num_envs)


def timed(act: Callable[[Any], object], observation: Any) -> float:
    began = time.perf_counter()
    act(observation)
    if isinstance(observation, torch.Tensor) and observation.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=1000, help="timed steps from each state")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--inplace", action="store_true", help="overwrite the state")
    way.add_argument("--actor", action="store_true", help="call a policy.actor()")
    way.add_argument("--cuda-graph", action="store_true", help="replay a captured step")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    print(f"{name}, {arguments.num_envs} environments")
    print(f"{'pattern':10}{'step':>8}{'us/step':>10}{'state KiB':>11}{'largest':>10}")
    for pattern in ("m", "s", "ms"):
        policy = Policy(
            gymnasium.spaces.Box(-1, 1, (4,), np.float32),
            gymnasium.spaces.Discrete(2),
            MemoryConfig(pattern=pattern, width=64),
            PolicyConfig(),
            NormalizationConfig(),
        ).to(arguments.device)
        observations: Any = torch.randn(1000, arguments.num_envs, 4, device=arguments.device)
        if arguments.actor:
            observations = observations.numpy(force=True)
        actings: dict[int, Eager | Actor] = {
            steps: policy.actor(arguments.num_envs, cuda_graph=arguments.cuda_graph)
            if arguments.actor or arguments.cuda_graph
            else Eager(policy, arguments.num_envs, arguments.inplace)
            for steps in (10, arguments.steps)
        }
        for steps, acting in actings.items():
            for step in range(steps):
                acting(observations[step % 1000])
        times: dict[int, list[float]] = {steps: [] for steps in actings}
        for turn in range(arguments.turns):
            for steps, acting in actings.items():
                times[steps].append(timed(acting, observations[turn % 1000]))
        for steps, acting in actings.items():
            tensors = leaves_of(acting, arguments.num_envs)
            size = sum(tensor.nelement() * tensor.element_size() for tensor in tensors) / 1024
            largest = max(float(tensor.abs().max()) for tensor in tensors)
            micro = statistics.median(times[steps]) * 1e6
            print(f"{pattern:10}{steps:>8}{micro:10.1f}{size:11.1f}{largest:10.3g}")
        ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
        print(f"{pattern:10} ratio of late to early: {ratio:.2f}")


if __name__ == "__main__":
    main()
