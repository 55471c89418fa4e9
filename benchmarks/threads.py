"""Time updates of the same agent with one thread and with two, in turn.

    python benchmarks/threads.py [--rounds 30] [--width 128] [--num-envs 16] [--out FILE.json]

In a round each agent collects 128 steps and trains on them, 4 epochs of 4 minibatches. Counted is
wall time, of the update alone: another process on either core counts against two threads. So each
line has the ratio of medians, and that of the fastest fifth of the rounds. On Linux it also has the
share of all cores' time that others had meanwhile: processes, and the host of a virtual machine.

`two` is what two cores do here if nothing is shared: twice the time of an update alone, over its
time while another process trains the same agent on a thread of its own. Cores that share a cache,
a memory or a clock have less than 2, and two threads cannot have more.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from xlstm_rl import RecurrentPPO

COUNTS = (1, 2)
MEMORIES: dict[str, dict[str, Any]] = {
    "m": {"pattern": "m"},
    "s": {"pattern": "s"},
    "ms": {"pattern": "ms"},
    "lstm": {"kind": "lstm"},
}


class Updates:
    """An agent, and how long each of its updates took."""

    def __init__(self, threads: int, num_envs: int, memory: dict[str, Any], critic: str) -> None:
        self.seconds: list[float] = []
        self.agent = RecurrentPPO(
            "xlstm_rl/CartPoleNoVel-v1",
            threads=threads,
            env={"num_envs": num_envs},
            memory=memory,
            policy={"critic": critic},
            agent={"rollout_steps": 128, "epochs": 4, "minibatches": 4},
            logger={"kind": "none"},
        )
        self._rollout = 128 * num_envs
        self.agent.update = self._timed(self.agent.update)  # type: ignore[method-assign]

    def _timed(self, update: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
        def timed(*args: Any) -> dict[str, float]:
            began = time.perf_counter()
            found = update(*args)
            self.seconds.append(time.perf_counter() - began)
            return found

        return timed

    def turn(self) -> None:
        """Collect a rollout and train on it."""
        self.agent.learn(self._rollout)


class Beside:
    """A process that trains an agent while it is told to."""

    def __init__(self, *options: Any) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._goes, self._idles = spawn.Event(), spawn.Event()
        self._seconds = spawn.Value("d", 0.0)
        given = (self._goes, self._idles, self._seconds, options)
        self._process = spawn.Process(target=_train_when_told, args=given, daemon=True)
        self._process.start()
        self._idles.wait()

    def __enter__(self) -> None:
        self._idles.clear()
        self._goes.set()

    def __exit__(self, *_: object) -> None:
        self._goes.clear()
        self._idles.wait()

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has taken."""
        return float(self._seconds.value)

    def end(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.join()


def _train_when_told(goes: Any, idles: Any, seconds: Any, options: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    updates = Updates(1, *options)
    updates.turn()
    while True:
        seconds.value = time.process_time()
        if not goes.is_set():
            idles.set()
            goes.wait()
        updates.turn()


class Others:
    """What others had of the cores' time since it was made."""

    def __init__(self, beside: Beside) -> None:
        self._beside = beside
        self._began = time.perf_counter(), self._seconds()

    def share(self) -> float | None:
        """Return their share; None: the system does not say."""
        (began, before), now = self._began, self._seconds()
        if before is None or now is None:
            return None
        wall = time.perf_counter() - began
        return max(0.0, now - before) / (wall * (os.cpu_count() or 1))

    def _seconds(self) -> float | None:
        try:
            first = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        except OSError:
            return None
        user, nice, system, _, _, irq, softirq, steal = map(int, first)
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return busy - time.process_time() - self._beside.cpu_seconds()


def fastest(seconds: list[float]) -> float:
    """Return the mean of the fastest fifth."""
    return statistics.mean(sorted(seconds)[: max(1, len(seconds) // 5)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="updates of each agent")
    parser.add_argument("--width", type=int, default=128, help="of the memory")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--memories", nargs="+", default=list(MEMORIES), choices=MEMORIES)
    parser.add_argument("--critics", nargs="+", default=["shared", "separate"])
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"milliseconds of an update; {asked.num_envs} environments, width {asked.width}")
    print(
        f"{'':18}{'1 thread':>9}{'2':>8}{'ratio':>7}{'two':>6}   fastest{'1':>8}{'2':>8}"
        f"{'ratio':>7}{'two':>6}  others"
    )
    rows = {}
    for name in asked.memories:
        for critic in asked.critics:
            memory = {"width": asked.width, **MEMORIES[name]}
            made = [Updates(count, asked.num_envs, memory, critic) for count in COUNTS]
            both = Updates(1, asked.num_envs, memory, critic)
            beside = Beside(asked.num_envs, memory, critic)
            others = Others(beside)
            for _ in range(asked.rounds + 1):
                for each in made:
                    each.turn()
                with beside:
                    both.turn()
            share = others.share()
            beside.end()
            # the first also allocates
            one, two, shared = (each.seconds[1:] for each in (*made, both))
            line = f"{name + ', ' + critic:18}"
            for of in (statistics.median, fastest):
                a, b, c = of(one), of(two), of(shared)
                line += f"{1e3 * a:9.1f}{1e3 * b:8.1f}{a / b:7.2f}{2 * a / c:6.2f}" + " " * 9
            print(line.rstrip() + ("" if share is None else f"{share:8.0%}"), flush=True)
            rows[f"{name}, {critic}"] = {"one": one, "two": two, "beside": shared, "others": share}
    if asked.out:
        head = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        sizes = {"num_envs": asked.num_envs, "width": asked.width}
        asked.out.write_text(json.dumps({**head, **sizes, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
