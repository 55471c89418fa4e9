"""Actors apart from the learner, beside one process: steps per second, and steps to learn.

    python benchmarks/actors.py                              # the speed, environments of 1 ms
    python benchmarks/actors.py --learn cartpole_novel --seeds 3
    python benchmarks/actors.py --learn memory_chain --seeds 3

Speed: an environment whose step computes for 1 ms (`--sleep`: waits), PPO, 16 environments. The
rounds alternate, and the ratio is that of the medians. Learning: environment steps until the mean
return of the last 100 episodes reaches `--threshold`.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from slow_cartpole import SlowCartPole

from xlstm_rl.agents import TrainConfig, make_agent
from xlstm_rl.config import config_from_dict, config_to_dict, find_config, parse_config

THRESHOLDS = {"cartpole_novel": 400.0, "memory_chain": 0.9}


def steps_per_second(actors: int, updates: int, make: Callable[[], Any]) -> dict[str, float]:
    """Train, and return the medians of all updates but the first two."""
    from xlstm_rl import RecurrentPPO

    rows: list[dict[str, float]] = []
    rollout = 16 * 32
    agent = RecurrentPPO(
        make,
        env={"num_envs": 16, "vectorization": "sync", "max_episode_steps": 500},
        agent={"rollout_steps": 32, "epochs": 4, "actors": actors},
        logger={"kind": "none"},
        total_steps=rollout * updates,
    )
    with agent:
        agent.learn(on_update=lambda _, metrics: rows.append(dict(metrics)))
    names = ["time/sps", *(name for name in rows[-1] if name.startswith("actors/"))]
    return {name: statistics.median(row[name] for row in rows[2:]) for name in names}


def steps_to_learn(name: str, actors: int, staleness: int, seed: int, threshold: float) -> int:
    """Return the environment steps until the threshold; those of the whole budget if it is not."""
    values = config_to_dict(parse_config(TrainConfig, [], find_config(name)))
    values |= {"seed": seed, "logger": {"kind": "none"}}
    values["agent"] |= {"actors": actors} | ({"max_staleness": staleness} if actors else {})
    reached: list[int] = []

    def on_update(step: int, metrics: dict[str, float]) -> bool:
        if metrics["episode/return"] >= threshold:
            reached.append(step)
        return not reached

    with make_agent(config_from_dict(TrainConfig, values)) as agent:
        agent.learn(on_update=on_update)
        return reached[0] if reached else agent.steps_done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--staleness", type=int, default=1)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--milliseconds", type=float, default=1.0)
    parser.add_argument("--sleep", action="store_true", help="the environment waits")
    parser.add_argument("--learn", choices=[*THRESHOLDS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threshold", type=float)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}", flush=True)
    if asked.learn:
        compare_learning(asked)
        return
    make = partial(SlowCartPole, asked.milliseconds / 1000, asked.sleep)
    found: dict[int, list[float]] = {0: [], asked.actors: []}
    for _ in range(asked.rounds):
        for actors, values in found.items():
            row = steps_per_second(actors, asked.updates, make)
            values.append(row["time/sps"])
            print(actors, "actors:", {k: round(v, 2) for k, v in row.items()}, flush=True)
    alone, apart = (statistics.median(values) for values in found.values())
    print(f"{asked.actors} actors: {apart / alone:.2f} times the steps/s of one process")


def compare_learning(asked: argparse.Namespace) -> None:
    threshold = THRESHOLDS[asked.learn] if asked.threshold is None else asked.threshold
    found: dict[int, list[int]] = {0: [], asked.actors: []}
    for seed in range(asked.seeds):
        for actors, values in found.items():
            args = (asked.learn, actors, asked.staleness, seed, threshold)
            values.append(steps_to_learn(*args))
            print(f"seed {seed}, {actors} actors: {values[-1]:,} steps", flush=True)
    alone, apart = (statistics.mean(values) for values in found.values())
    print(f"to a return of {threshold}: {apart / alone:.2f} times the steps of one process")


if __name__ == "__main__":
    main()
