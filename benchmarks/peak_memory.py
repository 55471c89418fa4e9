"""Peak memory of training on long rollouts.

    python benchmarks/peak_memory.py [--steps 4096] [--width 128] [--pattern mm ms]

CartPole without velocities, 16 environments, a shared critic, one rollout and one epoch over it, in
as many minibatches as the table says. Each case runs in a process of its own; counted is by how
much its resident memory grew while it collected and trained.
"""

import argparse
import multiprocessing
import resource

import torch

from xlstm_rl import RecurrentPPO

ENVS = 16


def measure(pattern: str, width: int, steps: int, minibatches: int) -> float:
    """Return the growth in GiB."""
    torch.set_num_threads(1)
    agent = RecurrentPPO(
        "xlstm_rl/CartPoleNoVel-v1",
        threads=1,
        env={"num_envs": ENVS},
        memory={"pattern": pattern, "width": width},
        policy={"critic": "shared"},
        agent={"rollout_steps": steps, "epochs": 1, "minibatches": minibatches},
        logger={"kind": "none"},
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    agent.learn(ENVS * steps)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4096)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--pattern", nargs="+", default=["mm", "ms"])
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(f"{ENVS} environments x {arguments.steps} steps, width {arguments.width}")
    print(f"{'pattern':10}{'minibatches':>12}{'peak GiB':>10}")
    for pattern in arguments.pattern:
        for minibatches in (1, 4, 16):
            case = pattern, arguments.width, arguments.steps, minibatches
            with context.Pool(1) as alone:
                print(f"{pattern:10}{minibatches:12}{alone.apply(measure, case):10.2f}", flush=True)


if __name__ == "__main__":
    main()
