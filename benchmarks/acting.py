"""Cost of acting: does a step get slower, or the state larger, as an episode goes on?

    python benchmarks/acting.py [--steps 100000]

A policy acts in 16 environments for 10 steps and for 100,000. Then steps from the early and from
the late state are timed in turn, so that a change of the machine's speed meets both.
"""

import argparse
import statistics
import time

import gymnasium
import numpy as np
import torch

from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig
from xlstm_rl.policy.actor_critic import Leaves


@torch.no_grad()
def run(policy: Policy, observations: torch.Tensor, leaves: Leaves, steps: int) -> Leaves:
    """Act for a number of steps and return the state."""
    for step in range(steps):
        _, _, leaves = policy.network.step(observations[step % len(observations)], leaves, None)
    return leaves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=1000, help="timed steps from each state")
    parser.add_argument("--num-envs", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'pattern':10}{'step':>8}{'us/step':>10}{'state KiB':>11}{'largest':>10}")
    for pattern in ("m", "s", "ms"):
        policy = Policy(
            gymnasium.spaces.Box(-1, 1, (4,), np.float32),
            gymnasium.spaces.Discrete(2),
            MemoryConfig(pattern=pattern, width=64),
            PolicyConfig(),
            NormalizationConfig(),
        )
        observations = torch.randn(1000, arguments.num_envs, 4)
        early = run(policy, observations, policy.network.initial_leaves(arguments.num_envs), 10)
        late = run(policy, observations, early, arguments.steps - 10)
        times: dict[str, list[float]] = {"early": [], "late": []}
        states = {"early": early, "late": late}
        for turn in range(arguments.turns):
            for name in times:
                began = time.perf_counter()
                states[name] = run(policy, observations[turn % 1000 :], states[name], 1)
                times[name].append(time.perf_counter() - began)
        for name, count in (("early", 10), ("late", arguments.steps)):
            leaves = states[name]
            size = sum(leaf.nelement() * leaf.element_size() for leaf in leaves) / 1024
            largest = max(float(leaf.abs().max()) for leaf in leaves)
            micro = statistics.median(times[name]) * 1e6
            print(f"{pattern:10}{count:>8}{micro:10.1f}{size:11.1f}{largest:10.3g}")
        ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
        print(f"{pattern:10} ratio of late to early: {ratio:.2f}")


if __name__ == "__main__":
    main()
