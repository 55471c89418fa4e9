"""Training speed: our memories beside recurrent PPO of other libraries, side by side in one run.

    python benchmarks/throughput.py [--rounds 5] [--threads 1] [--width 128] [--out FILE.json]
    python benchmarks/throughput.py --only "^(m|ms), " --backend torch native
    python benchmarks/throughput.py --only "^default" --backend torch native

All train on CartPole without velocities: 16 environments x 128 steps, 4 epochs x 4 minibatches, on
the CPU. They take turns in a changing order, so that a change of the machine's speed meets all.
Counted are environment steps per second of CPU time on one thread, of the clock on more. Ratios are
to the first contender that runs. `equal size` has the width at which a memory has as many
parameters as the plain LSTM, within 20 %. `default` is our configuration without an option but the
rollout's length, whatever `--width` says. Peers that are not installed are named and left out.
"""

import argparse
import functools
import importlib
import json
import platform
import random
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peers import Learner, Sizes

from xlstm_rl import RecurrentPPO

PEERS = {"sb3-contrib, LSTM": "sb3", "plain PyTorch, LSTM": "plain_lstm", "TorchRL": "torchrl_lstm"}
PATTERNS = ("m", "s", "ms")
MEMORIES = (*PATTERNS, "lstm")
TOLERANCE = 0.2


class Ours:
    """Our agent, on rollouts of the benchmark's size."""

    def __init__(self, sizes: Sizes, threads: int, **sections: dict[str, Any]) -> None:
        agent = {"rollout_steps": sizes.steps, **sections.pop("agent", {})}
        self.agent = RecurrentPPO(
            sizes.env_id,
            threads=threads,
            env={"num_envs": sizes.num_envs},
            agent=agent,
            logger={"kind": "none"},
            **sections,
        )
        self.parameters = sum(p.numel() for p in self.agent.parameters)

    def __call__(self, steps: int) -> None:
        """Train."""
        self.agent.learn(steps)


def ours(sizes: Sizes, memory: str, critic: str, threads: int, backend: dict[str, Any]) -> Ours:
    """Return our agent with a memory, at the sizes of the others."""
    kind: dict[str, Any] = {"pattern": memory} if memory in PATTERNS else {"kind": memory}
    return Ours(
        sizes,
        threads,
        memory={"width": sizes.width, **kind, **backend},
        policy={"critic": critic},
        agent={"epochs": sizes.epochs, "minibatches": sizes.minibatches},
    )


def equal_size(memory: str, target: int, make: Callable[[Sizes], Ours]) -> Ours | None:
    """Return our agent at the width whose parameters are nearest to `target`; None: none is."""
    found = [make(Sizes(width=width)) for width in range(32, 257, 16)]
    best = min(found, key=lambda one: abs(one.parameters - target))
    return best if abs(best.parameters - target) <= TOLERANCE * target else None


def contenders(width: int, threads: int, backends: list[str | None]) -> dict[str, Any]:
    """Return what makes each contender, by its name."""
    sizes = Sizes(width=width)
    found: dict[str, Any] = {
        name: functools.partial(_peer, module, sizes) for name, module in PEERS.items()
    }
    for backend in backends:
        mark = "" if backend is None else f", {backend}"
        chosen = {} if backend is None else {"backend": backend}
        found[f"default{mark}"] = functools.partial(Ours, sizes, threads, memory=chosen)
        for memory in MEMORIES:
            for critic in ("shared", "separate"):
                made = functools.partial(
                    ours, memory=memory, critic=critic, threads=threads, backend=chosen
                )
                found[f"{memory}, {critic}{mark}"] = functools.partial(made, sizes)
                if critic == "shared":
                    found[f"{memory}, shared, equal size{mark}"] = functools.partial(
                        _equal_size, memory, sizes, made
                    )
    return found


def _peer(module: str, sizes: Sizes) -> Learner:
    made: Learner = importlib.import_module(f"peers.{module}").make(sizes)
    return made


def _equal_size(memory: str, sizes: Sizes, make: Callable[[Sizes], Ours]) -> Ours | None:
    return equal_size(memory, _peer("plain_lstm", sizes).parameters, make)


def steps_per_second(learner: Learner, rollouts: int, clock: Callable[[], float]) -> float:
    """Time a number of whole rollouts with their updates."""
    steps = rollouts * Sizes().per_rollout
    began = clock()
    learner(steps)
    return steps / (clock() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contender")
    parser.add_argument("--rollouts", type=int, default=1, help="rollouts in a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=128, help="of every memory")
    parser.add_argument("--only", default="", help="a regular expression of contenders' names")
    parser.add_argument("--backend", nargs="*", help="of our xLSTM; default auto")
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    made: dict[str, Learner] = {}
    for name, make in contenders(
        arguments.width, arguments.threads, arguments.backend or [None]
    ).items():
        if not re.search(arguments.only, name):
            continue
        if arguments.backend and name.startswith("lstm"):
            continue  # which has no backend
        try:
            learner = make()
        except ImportError as error:
            print(f"{name}: not installed ({error})")
            continue
        if learner is None:
            print(f"{name}: no width has as many parameters")
            continue
        steps_per_second(learner, 1, clock)  # warm-up: allocator, lazy imports
        made[name] = learner
    speeds: dict[str, list[float]] = {name: [] for name in made}
    order = list(made)
    shuffle = random.Random(0).shuffle
    for _ in range(arguments.rounds):
        shuffle(order)
        for name in order:
            speeds[name].append(steps_per_second(made[name], arguments.rollouts, clock))
    machine = f"{platform.processor() or platform.machine()}, torch {torch.__version__}"
    print(f"{machine}, {arguments.threads} thread(s), width {arguments.width}")
    print(f"{'':34}{'parameters':>11}{'steps/s':>9}{'ratio':>8}{'min':>7}{'max':>7}")
    base = next(iter(speeds.values()))
    rows = {}
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(values, base, strict=True)]
        rows[name] = {
            "parameters": made[name].parameters,
            "steps_per_second": values,
            "ratio": ratios,
        }
        print(
            f"{name:34}{made[name].parameters:11,}{statistics.median(values):9.0f}"
            f"{statistics.median(ratios):8.2f}{min(ratios):7.2f}{max(ratios):7.2f}"
        )
    if arguments.out:
        head = {"machine": machine, "threads": arguments.threads, "width": arguments.width}
        arguments.out.write_text(json.dumps({**head, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
