"""The share of a training's CPU time that logging takes, for each logger.

    python benchmarks/logging_cost.py --loggers none csv jsonl tensorboard --repeats 5

Every run is a short one from its start, in a process of its own, where logging weighs most; runs
of different loggers take turns. Logging is all that the training does for it: the metrics of
recent episodes, the watch over the memories, `episodes.csv`, histograms, and the destinations
themselves, with what opens and closes them. `inside` is the CPU time of these calls in the run's
own process, over that of the whole run; the median of the repeats. `beside` is the CPU time of
the whole run, over that with the logger `none`, smallest against smallest: it has the noise of
the machine in it. What a logger's own process takes (W&B has one) is in neither.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

UPDATES = {"a2c": 48, "ppo": 8}
"""About two seconds of CPU time."""


def measured_run(algo: str, logger: str, updates: int) -> tuple[float, float]:
    """Train in this process, and return the CPU seconds of logging and of the whole run."""
    from xlstm_rl import RecurrentA2C, RecurrentPPO
    from xlstm_rl.agents import base
    from xlstm_rl.agents.episode_metrics import RecentEpisodes
    from xlstm_rl.callbacks.calls import CallbackCalls
    from xlstm_rl.runs.run import Run

    spent = [0.0]

    def clocked(owner: Any, name: str) -> None:
        call: Callable[..., Any] = getattr(owner, name)

        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent[0] += time.thread_time() - began

        setattr(owner, name, timed)

    for hook in ("training_start", "rollout_end", "update", "training_end", "close"):
        clocked(CallbackCalls, hook)
    for owner, name in (
        *((Run, "_open_logger"), (Run, "log"), (Run, "close"), (base, "log_histograms")),
        *((RecentEpisodes, "add"), (RecentEpisodes, "metrics")),
    ):
        clocked(owner, name)
    made = RecurrentA2C if algo == "a2c" else RecurrentPPO
    with tempfile.TemporaryDirectory() as folder:
        agent = made(
            "xlstm_rl/CartPoleNoVel-v1",
            total_steps=10_000_000,
            run_dir=None if logger == "none" else f"{folder}/run",
            logger=logger,
        )
        steps = updates * agent.env.num_envs * agent.algorithm.rollout_length
        began = time.thread_time()
        agent.learn(steps)
        agent.close()
        return spent[0], time.thread_time() - began


def main() -> None:
    """Print a line for each algorithm and logger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algos", nargs="+", default=["a2c", "ppo"])
    parser.add_argument("--loggers", nargs="+", default=["none", "csv", "jsonl", "tensorboard"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--updates", type=int, help="of a run; default: about two seconds")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured_run(asked.algos[0], asked.loggers[0], asked.updates)))
        return
    print(f"{'algo':6}{'logger':28}{'inside':>8}{'beside':>8}{'CPU s':>8}")
    for algo in asked.algos:
        updates = asked.updates or UPDATES[algo]
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in asked.loggers}
        for _ in range(asked.repeats):
            for logger, runs in found.items():
                words = ["--one", "--algos", algo, "--loggers", logger, "--updates", str(updates)]
                done = subprocess.run(
                    [sys.executable, __file__, *words],
                    capture_output=True,
                    text=True,
                    check=True,
                    env={"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **os.environ},
                )
                runs.append(json.loads(done.stdout.splitlines()[-1]))
        least = {logger: min(whole for _, whole in runs) for logger, runs in found.items()}
        for logger, runs in found.items():
            inside = statistics.median(part / whole for part, whole in runs)
            beside = least[logger] / least["none"] - 1.0 if "none" in least else float("nan")
            print(f"{algo:6}{logger:28}{inside:8.2%}{beside:8.2%}{least[logger]:8.2f}")


if __name__ == "__main__":
    main()
