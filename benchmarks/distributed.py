"""Steps per second of one process and of several that train together, with as many environments.

    python benchmarks/distributed.py                       # Acrobot
    python benchmarks/distributed.py --milliseconds 1      # CartPole whose step computes for 1 ms
    python benchmarks/distributed.py --env CartPole-v1 --rounds 1 --updates 6

Environment and acting are the bottleneck here: one pass over each rollout in one minibatch. Beside
the processes that train together stand as many that train each for itself, at the same time, with
as many environments: they exchange nothing and wait for nobody, and are the ceiling. The rounds
alternate, and the ratios are those of the medians. Give each process a free core.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from slow_cartpole import ENV_ID

ROOT = Path(__file__).parents[1]
STEPS = 128
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node")


def words_of(asked: argparse.Namespace, processes: int) -> list[str]:
    """Return the options of a training, of which there are several or which has several."""
    words = ["--env.id", asked.env, "--env.vectorization", "sync"]
    if asked.milliseconds:
        waits = str(asked.sleep).lower()
        seconds = str(asked.milliseconds / 1000)
        words = ["--env.id", ENV_ID, "--env.vectorization", "sync"]
        words += ["--env.kwargs.seconds", seconds, "--env.kwargs.waits", waits]
    return [
        *words,
        *("--env.num-envs", str(asked.num_envs // processes)),
        *("--agent.rollout-steps", str(STEPS), "--agent.epochs", "1", "--agent.minibatches", "1"),
        *("--logger.kind", "csv", "--checkpoint.every-steps", "0"),
    ]


def steps_per_second(asked: argparse.Namespace, processes: int, together: bool) -> float:
    """Train with so many processes, and return the median of all updates but the first two.

    Those that do not train together have a training each, and their steps are added up.
    """
    runs = 1 if together else processes
    steps = STEPS * asked.num_envs * asked.updates // runs
    command = [sys.executable, "-m"]
    if together and processes > 1:
        command += [*TORCHRUN, str(processes), "-m"]
    command += ["xlstm_rl", "train", *words_of(asked, processes), "--total-steps", str(steps)]
    found = [str(ROOT), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(found), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(number) for number in range(runs)]
        children = [
            subprocess.Popen(
                [*command, "--run-dir", str(place)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for place in places
        ]
        errors = [child.communicate()[1] for child in children]
        for child, error in zip(children, errors, strict=True):
            if child.returncode:
                sys.exit(error)
        return sum(median_speed(place / "metrics.csv") for place in places)


def median_speed(metrics: Path) -> float:
    with metrics.open(newline="") as file:
        return statistics.median(float(row["time/sps"]) for row in [*csv.DictReader(file)][2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="Acrobot-v1")
    parser.add_argument("--milliseconds", type=float, default=0.0, help="of a step of CartPole")
    parser.add_argument("--sleep", action="store_true", help="that step waits")
    parser.add_argument("--num-envs", type=int, default=16, help="of all processes together")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    many = asked.processes
    shown = f"CartPole of {asked.milliseconds:g} ms a step" if asked.milliseconds else asked.env
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, {shown}", flush=True)
    kinds = {
        f"1 x {asked.num_envs} environments": (1, True),
        f"{many} x {asked.num_envs // many} environments, together": (many, True),
        f"{many} x {asked.num_envs // many} environments, each for itself": (many, False),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(asked.rounds):
        for name, (processes, together) in kinds.items():
            found[name].append(steps_per_second(asked, processes, together))
            print(f"{name}: {found[name][-1]:,.0f} steps/s", flush=True)
    one, joined, apart = (statistics.median(values) for values in found.values())
    print(
        f"{many} processes: {joined / one:.2f} times the steps/s of one; {apart / one:.2f} where "
        "they exchange nothing"
    )


if __name__ == "__main__":
    main()
