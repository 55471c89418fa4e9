"""What more processes give and cost: a model from measured rates, held against measurements.

    python benchmarks/sizing.py                             # docs/sizing.md says what is printed
    python benchmarks/sizing.py --env Acrobot-v1 --num-envs 32 --check 1 2

Measured, in this process: seconds that a rollout takes with all environments and with an eighth of
them, seconds of an update, those of handing over rollouts and weights, and bytes; and how much
longer all of it takes while the other cores are busy with the same. From these the model predicts
the steps/s of N actors, which is held against runs with N actors here, and extrapolated to machines
that nobody measured.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from xlstm_rl import RecurrentPPO
from xlstm_rl.collection.rollout import Rollout
from xlstm_rl.distributed.actors.memory import Blocks, Layout
from xlstm_rl.distributed.actors.parts import joined_rollout, said_of, tensors_of

PAPER = (1, 2, 4, 8, 16, 64, 256, 1000)


@dataclass(frozen=True)
class Rates:
    """What was measured of one kind of training."""

    num_envs: int
    steps: int
    per_step: float
    """Seconds of a step of a rollout, whatever the number of environments."""
    per_env: float
    """Seconds that each environment adds to a step."""
    update: float
    """Seconds of an update with all environments."""
    update_start: float
    """Of that what does not grow with the number of environments."""
    handing: float
    """Seconds in which an actor writes a whole rollout down and takes weights over."""
    taking: float
    """Seconds in which the learner joins it, counts it in and hands weights out."""
    contention: float
    """How many times longer everything takes where every core is busy."""
    rollout_bytes: int
    weight_bytes: int
    gradient_bytes: int

    def collecting(self, num_envs: float) -> float:
        """Return seconds of a rollout of one actor."""
        share = num_envs / self.num_envs
        return self.steps * (self.per_step + self.per_env * num_envs) + self.handing * share

    def updating(self, num_envs: float) -> float:
        """Return seconds of an update, with all that the learner does beside it."""
        rest = self.update - self.update_start + self.taking
        return self.update_start + rest * num_envs / self.num_envs

    def period(self, actors: int, num_envs: float, cores: float) -> float:
        """Return seconds from update to update, with so many environments in all.

        Actors and learner begin together and wait for each other, and share the cores evenly.
        """
        left = [(actors, self.collecting(num_envs / actors)), (1, self.updating(num_envs))]
        seconds = 0.0
        while left:
            busy = sum(processes for processes, _ in left)
            share = min(1.0, cores / busy)
            slower = self.contention if min(busy, cores) > 1 else 1.0
            part = min(rest for _, rest in left)
            seconds += part * slower / share
            left = [(processes, rest - part) for processes, rest in left if rest > part]
        return seconds

    def sps(self, actors: int, num_envs: float, cores: float) -> float:
        """Return environment steps per second."""
        return num_envs * self.steps / self.period(actors, num_envs, cores)


def make(asked: argparse.Namespace, num_envs: int, actors: int = 0) -> RecurrentPPO:
    return RecurrentPPO(
        asked.env,
        env={"num_envs": num_envs, "vectorization": asked.vectorization},
        agent={"rollout_steps": asked.steps, "epochs": asked.epochs, "actors": actors},
        logger={"kind": "none"},
        total_steps=10**9,
    )


def median_seconds(call: Callable[[], Any], times: int = 5) -> float:
    call()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def turns(asked: argparse.Namespace) -> float:
    """Return seconds of a rollout and its update, in one process."""
    with make(asked, asked.num_envs) as agent:
        collector: Any = agent._make_collector()

        def turn() -> None:
            rollout = collector.collect()
            agent._prepare(rollout)
            agent.update(rollout, 0.0)

        return median_seconds(turn)


@contextmanager
def others_busy() -> Iterator[None]:
    """Keep every core but one busy with training, inside the block."""
    command = [sys.executable, __file__, *sys.argv[1:], "--busy"]
    others = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range((os.cpu_count() or 1) - 1)
    ]
    try:
        for other in others:
            if other.stdout is not None:
                other.stdout.readline()
        yield
    finally:
        for other in others:
            other.kill()
            other.communicate()


def handing_over(agent: RecurrentPPO, rollout: Rollout) -> tuple[float, float]:
    """Return seconds that an actor and the learner take to hand rollout and weights over."""
    tensors, state = tensors_of(rollout), agent.policy.state_dict()
    slots, weights = Blocks(Layout.of(tensors), 1), Blocks(Layout.of(state), 1)

    def give() -> None:
        slots.write(0, tensors_of(rollout))
        agent.policy.load_state_dict(weights[0])

    def take() -> None:
        weights.write(0, agent.policy.state_dict())
        agent._prepare(joined_rollout([slots[0]], [said_of(rollout)], agent.device))

    weights.write(0, state)
    return median_seconds(give), median_seconds(take)


def measured_rates(asked: argparse.Namespace) -> Rates:
    seconds: dict[int, tuple[float, float]] = {}
    few = max(4, asked.num_envs // 8)
    for num_envs in (few, asked.num_envs):
        with make(asked, num_envs) as agent:
            collector: Any = agent._make_collector()
            rollout = collector.collect()
            agent._prepare(rollout)
            updating = median_seconds(lambda agent=agent, one=rollout: agent.update(one, 0.0))
            collecting = median_seconds(collector.collect)
            seconds[num_envs] = (collecting, updating)
            handing, taking = handing_over(agent, rollout)
            weights = sum(one.numel() * one.element_size() for one in agent.parameters)
            rollout_bytes = sum(x.numel() * x.element_size() for x in tensors_of(rollout).values())
            weight_bytes = Layout.of(agent.policy.state_dict()).size
    alone = turns(asked)
    with others_busy():
        contention = max(1.0, turns(asked) / alone)
    (few_collect, few_update), (all_collect, all_update) = seconds[few], seconds[asked.num_envs]
    per_env = max(0.0, (all_collect - few_collect) / (asked.num_envs - few)) / asked.steps
    share = few / asked.num_envs
    return Rates(
        asked.num_envs,
        asked.steps,
        max(0.0, all_collect / asked.steps - per_env * asked.num_envs),
        per_env,
        all_update,
        max(0.0, (few_update - share * all_update) / (1.0 - share)),
        handing,
        taking,
        contention,
        rollout_bytes,
        weight_bytes,
        weights * asked.epochs * 4,
    )


def measured_sps(asked: argparse.Namespace, actors: int) -> float:
    rows: list[float] = []
    with make(asked, asked.num_envs, actors) as agent:
        steps = asked.num_envs * asked.steps * asked.updates
        agent.learn(steps, on_update=lambda _, metrics: rows.append(metrics["time/sps"]))
    return statistics.median(rows[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="xlstm_rl/CartPoleNoVel-v1")
    parser.add_argument("--vectorization", default="sync")
    parser.add_argument("--num-envs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=64, help="of a rollout")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--check", type=int, nargs="*", default=[1, 2, 4], help="numbers of actors")
    parser.add_argument("--busy", action="store_true", help="keep a core busy until killed")
    asked = parser.parse_args()
    while asked.busy:
        turns(asked)
        print("busy", flush=True)
    cores = os.cpu_count() or 1
    print(f"{cores} cores, load {os.getloadavg()[0]:.2f}, {asked.env}", flush=True)
    rates = measured_rates(asked)
    show(rates)
    print("\n| actors | predicted steps/s | measured | ratio |\n|---|---|---|---|")
    for actors in asked.check:
        guess, found = rates.sps(actors, rates.num_envs, cores), measured_sps(asked, actors)
        print(f"| {actors} | {guess:,.0f} | {found:,.0f} | {found / guess:.2f} |", flush=True)
    extrapolate(rates)


def show(rates: Rates) -> None:
    whole = rates.num_envs * rates.steps
    collecting = rates.collecting(rates.num_envs)
    print(
        f"a step of a rollout: {rates.per_step * 1e6:.0f} us, and {rates.per_env * 1e6:.1f} us for "
        f"each environment\nan update of {whole:,} steps: {rates.update * 1e3:.0f} ms, of which "
        f"{rates.update_start * 1e3:.0f} ms whatever their number\n"
        f"handing over: {rates.handing * 1e3:.1f} ms in an actor, {rates.taking * 1e3:.1f} ms in "
        f"the learner\nwith every core busy: {rates.contention:.2f} times as long\n"
        f"one process, taking turns: {whole / (collecting + rates.update):,.0f} steps/s\n"
        f"bytes: a rollout {rates.rollout_bytes:,} ({rates.rollout_bytes / whole:.0f} a step), "
        f"a weight push {rates.weight_bytes:,}, the gradients of an update {rates.gradient_bytes:,}"
    )


def extrapolate(rates: Rates) -> None:
    """Print what actors with a core and as many environments each give."""
    print(
        f"\neach actor with a core of its own and {rates.num_envs} environments:\n\n"
        "| actors | they play, steps/s | the learner takes | the run | MB/s to the learner | "
        "MB/s from it |\n|---|---|---|---|---|---|"
    )
    for actors in PAPER:
        envs = actors * rates.num_envs
        played = envs * rates.steps / rates.collecting(rates.num_envs)
        taken = envs * rates.steps / rates.updating(envs)
        run = min(played, taken)
        updates = run / (envs * rates.steps)
        to = updates * actors * rates.rollout_bytes / 1e6
        out = updates * actors * rates.weight_bytes / 1e6
        print(f"| {actors:,} | {played:,.0f} | {taken:,.0f} | {run:,.0f} | {to:.2f} | {out:.2f} |")
    most = rates.num_envs * rates.steps / (rates.update - rates.update_start)
    one = rates.num_envs * rates.steps / rates.collecting(rates.num_envs)
    print(f"\nthe learner is saturated from {most / one:.1f} such actors on")


if __name__ == "__main__":
    main()
