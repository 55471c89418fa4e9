"""Training on a GPU: steps per second by number of environments, rollouts on tensors or on arrays.

    python benchmarks/training_gpu.py [--envs 256 4096] [--memories m s ms lstm] [--out FILE.json]

PPO on MemoryChain of length 32, two epochs of four minibatches, rollouts of 66 steps. `tensors`
keeps environments, rollout and update on the GPU; `arrays` steps the same environments on the CPU.
The first two rollouts warm up (kernels are compiled, a graph is captured) and do not count. The
contenders of a case take turns, `--rounds` each; the figure is the median. Peak memory is what
torch held of the GPU's. Needs a GPU; exit status 2 where there is none.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from xlstm_rl import RecurrentPPO

LENGTH, STEPS = 32, 66
MEMORIES: dict[str, dict[str, Any]] = {
    "m": {"pattern": "m"},
    "s": {"pattern": "s"},
    "ms": {"pattern": "ms", "num_blocks": 2},
    "lstm": {"kind": "lstm"},
}


def make(memory: str, num_envs: int, tensors: bool) -> RecurrentPPO:
    """Return an agent that has warmed up."""
    return RecurrentPPO(
        "xlstm_rl/MemoryChain-v0",
        device="cuda",
        total_steps=1_000_000_000,
        env={"num_envs": num_envs, "kwargs": {"length": LENGTH, "tensors": tensors}},
        memory=MEMORIES[memory],
        policy={"critic": "shared"},
        agent={"rollout_steps": STEPS, "epochs": 2, "minibatches": 4},
        logger={"kind": "none"},
    ).learn(2 * num_envs * STEPS)


def measure(memory: str, num_envs: int, rounds: int) -> dict[str, Any]:
    """Return steps per second of both ways, and peak memory."""
    torch.cuda.reset_peak_memory_stats()
    agents = {"tensors": make(memory, num_envs, True), "arrays": make(memory, num_envs, False)}
    rates: dict[str, list[float]] = {name: [] for name in agents}
    for _ in range(rounds):
        for name, agent in agents.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            agent.learn(num_envs * STEPS)
            torch.cuda.synchronize()
            rates[name].append(num_envs * STEPS / (time.perf_counter() - start))
    peak = torch.cuda.max_memory_allocated() / 2**30
    medians = {name: statistics.median(found) for name, found in rates.items()}
    return {"memory": memory, "num_envs": num_envs, "peak_gib": peak} | medians


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=int, nargs="+", default=[256, 4096])
    parser.add_argument("--memories", nargs="+", choices=MEMORIES, default=list(MEMORIES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("training_gpu: needs a GPU; torch.cuda.is_available() is false", file=sys.stderr)
        return 2
    device = torch.cuda.get_device_name()
    print(f"{device}, torch {torch.__version__}; steps/s")
    print(f"{'memory':8}{'envs':>6}{'tensors':>12}{'arrays':>12}{'ratio':>7}{'peak GiB':>10}")
    rows = []
    for memory in arguments.memories:
        for num_envs in arguments.envs:
            row = measure(memory, num_envs, arguments.rounds)
            rows.append(row)
            print(
                f"{memory:8}{num_envs:6}{row['tensors']:12,.0f}{row['arrays']:12,.0f}"
                f"{row['tensors'] / row['arrays']:7.2f}{row['peak_gib']:10.2f}",
                flush=True,
            )
            if arguments.out is not None:
                about = {"device": device, "torch": torch.__version__, "rows": rows}
                arguments.out.write_text(json.dumps(about, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
