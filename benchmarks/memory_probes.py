"""What each cell is for: tasks that one memory learns and another does not, on the same budget.

    python benchmarks/memory_probes.py parity [--seeds 3] [--out FILE.json]
    python benchmarks/memory_probes.py associative_recall

Each run is `xlstm-rl train --config PROBE` with another memory, everything else equal. Printed is
the share of right answers of the saved policy, taking the most probable action, in episodes that it
was not trained on; chance is .5 for parity and .25 for recall.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.agents import TrainConfig
from xlstm_rl.config import find_config, parse_config
from xlstm_rl.memory import make_memory

PROBES = {
    "parity": {
        "sLSTM": ["--memory.pattern", "s"],
        "mLSTM, then sLSTM": ["--memory.pattern", "ms"],
        "mLSTM": ["--memory.pattern", "m"],
    },
    "associative_recall": {
        "mLSTM": ["--memory.pattern", "m"],
        "LSTM": ["--memory.kind", "lstm"],
    },
}


def train_and_evaluate(probe: str, options: list[str], seed: int, episodes: int) -> dict[str, Any]:
    """Train one policy; return its curve and what it scores."""
    options = [*options, "--seed", str(seed), "--logger.kind", "none"]
    config = parse_config(TrainConfig, options, find_config(probe))
    agent = RecurrentPPO.from_config(config)
    curve: list[tuple[int, float]] = []
    began = time.perf_counter()
    agent.learn(on_update=lambda step, metrics: curve.append((step, metrics["episode/return"])))
    seconds = time.perf_counter() - began
    returns = np.array(evaluate(agent.policy, episodes=episodes, seed=10_000).returns)
    return {
        "options": options,
        "memory_parameters": sum(p.numel() for p in make_memory(config.memory).parameters()),
        "steps": agent.steps_done,
        "seconds": seconds,
        # Every answer is worth 1 / n if it is right and -1 / n if it is wrong.
        "right_answers": float((1 + returns.mean()) / 2),
        "episodes_without_an_error": float((returns > 1 - 1e-6).mean()),
        "curve_of_training_returns": curve[:: max(1, len(curve) // 50)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("probe", choices=PROBES)
    parser.add_argument("--memories", nargs="+", help="some of the probe's memories")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--out", type=Path, help="also write figures and curves to this JSON file")
    args = parser.parse_args()
    machine = f"{platform.machine()}, torch {torch.__version__}, one thread"
    print(machine)
    print(f"{'memory':<20}{'parameters':>11}{'seed':>6}{'steps':>9}{'right':>8}{'no error':>10}")
    runs: dict[str, list[dict[str, Any]]] = {}
    for seed in range(args.seeds):
        for name in args.memories or PROBES[args.probe]:
            run = train_and_evaluate(args.probe, PROBES[args.probe][name], seed, args.episodes)
            runs.setdefault(name, []).append(run)
            print(
                f"{name:<20}{run['memory_parameters']:>11,}{seed:>6}{run['steps']:>9,}"
                f"{run['right_answers']:>8.3f}{run['episodes_without_an_error']:>10.3f}",
                flush=True,
            )
            if args.out:
                result = {"machine": machine, "probe": args.probe, "runs": runs}
                args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
