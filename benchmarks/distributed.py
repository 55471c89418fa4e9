"""Steps per second of one process and of several that train together, with as many environments.

    python benchmarks/distributed.py                       # Acrobot, one after the other
    python benchmarks/distributed.py --env CartPole-v1 --rounds 1 --updates 6

Environment and acting are the bottleneck here: one pass over each rollout in one minibatch. The
rounds alternate, and the ratio is that of the medians. Give each process a free core.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = 128


def steps_per_second(processes: int, num_envs: int, updates: int, env: str) -> float:
    """Train with so many processes, and return the median of all updates but the first two."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = [
            *("--env.id", env, "--env.vectorization", "sync"),
            *("--env.num-envs", str(num_envs // processes)),
            *("--agent.rollout-steps", str(STEPS), "--agent.epochs", "1"),
            *("--agent.minibatches", "1", "--total-steps", str(STEPS * num_envs * updates)),
            *("--run-dir", str(run), "--logger.kind", "csv", "--checkpoint.every-steps", "0"),
        ]
        command = [sys.executable, "-m"]
        if processes > 1:
            command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            command += ["-m"]
        env_now = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, "xlstm_rl", "train", *words], env=env_now, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stderr)
        with (run / "metrics.csv").open(newline="") as file:
            return statistics.median(float(row["time/sps"]) for row in [*csv.DictReader(file)][2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="Acrobot-v1")
    parser.add_argument("--num-envs", type=int, default=16, help="of all processes together")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, {asked.env}")
    found: dict[int, list[float]] = {1: [], asked.processes: []}
    for _ in range(asked.rounds):
        for processes, values in found.items():
            args = (processes, asked.num_envs, asked.updates, asked.env)
            values.append(steps_per_second(*args))
            each = f"{processes} x {asked.num_envs // processes} environments"
            print(f"{each}: {values[-1]:,.0f} steps/s", flush=True)
    alone, together = (statistics.median(values) for values in found.values())
    print(f"{asked.processes} processes: {together / alone:.2f} times the steps/s of one")


if __name__ == "__main__":
    main()
