"""Cost of acting: does a step get slower, or the state larger, as an episode goes on?

    python benchmarks/acting.py [--steps 100000]

Prints time per step and size of the memory state near step 10 and near the last step, for a policy
that acts in 16 environments.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
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
        leaves = policy.network.initial_leaves(arguments.num_envs)
        observations = torch.randn(1000, arguments.num_envs, 4)
        window: list[float] = []
        medians = []
        with torch.no_grad():
            for step in range(arguments.steps):
                began = time.perf_counter()
                _, _, leaves = policy.network.step(observations[step % 1000], leaves, None)
                window.append(time.perf_counter() - began)
                if step == 1009 or step == arguments.steps - 1:
                    medians.append(statistics.median(window[-1000:]))
                    window.clear()
                    size = sum(leaf.nelement() * leaf.element_size() for leaf in leaves) / 1024
                    largest = max(float(leaf.abs().max()) for leaf in leaves)
                    label = "10 ..." if step == 1009 else f"{arguments.steps}"
                    micro = medians[-1] * 1e6
                    print(f"{pattern:10}{label:>8}{micro:10.1f}{size:11.1f}{largest:10.3g}")
        print(f"{pattern:10} ratio of late to early: {medians[1] / medians[0]:.2f}")


if __name__ == "__main__":
    main()
