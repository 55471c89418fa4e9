"""Training and acting of two checkouts of this library, side by side in one run.

    git worktree add ../before v0.1.0
    python benchmarks/before_after.py ../before . [--turns 20] [--out FILE.json]

Each has a process of one thread. The two take short turns, one at a time, so that a change of the
machine's speed meets both. Counted is CPU time, which other work on the machine changes less than
the time of the clock. Printed are medians, and the speed of the second checkout as a multiple of
the first: over 1 is faster.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

# What both checkouts know. Prints one line {name: seconds of CPU} for every line that it reads.
WORKER = """
import json, re, sys, time
import gymnasium, numpy as np, torch
from xlstm_rl import RecurrentPPO
torch.set_num_threads(1)

def trainer(pattern):
    agent = RecurrentPPO(
        "xlstm_rl/CartPoleNoVel-v1", env={"num_envs": 16}, logger={"kind": "none"},
        memory={"pattern": pattern, "width": 64}, policy={"critic": "shared"},
        agent={"rollout_steps": 128, "epochs": 4, "minibatches": 4},
    )
    return agent, lambda: agent.learn(2048)

def default(env="xlstm_rl/CartPoleNoVel-v1", **policy):
    agent = RecurrentPPO(
        env, env={"num_envs": 16}, logger={"kind": "none"}, policy=policy,
        agent={"rollout_steps": 128, "target_kl": None},  # the same work in both
    )
    return agent, lambda: agent.learn(2048)

class Chooses(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.MultiDiscrete([3, 4])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 50
        return self.observation_space.sample(), self.info()

    def step(self, action):
        self.left -= 1
        reward = float(np.sum(action))
        return self.observation_space.sample(), reward, not self.left, False, self.info()

    def info(self):
        return {}

class Masked(Chooses):
    action_space = gymnasium.spaces.Discrete(4)

    def info(self):
        return {"action_mask": np.array([1, 1, 0, self.left % 2], np.int8)}

def act(policy):
    obs, state = np.zeros((16, 2), np.float32), None
    def run():
        nonlocal state
        for _ in range(100):
            _, state = policy.act(obs, state)
    return run

def actor(policy, num_envs):
    shape = (2,) if num_envs is None else (num_envs, 2)
    actor, obs = policy.actor(num_envs), np.zeros(shape, np.float32)
    actor(obs, reset=True)
    def run():
        for _ in range(100):
            actor(obs)
    return run

work = {"default configuration, one rollout and update": default()[1]}
work["the same, observations are choices"] = default("xlstm_rl/RepeatPrevious-v0")[1]
gsde = {"std": "gsde"}
name = "xlstm_rl/PendulumNoVel-v1"
work["the same, Pendulum"] = default(name)[1]
work["the same, Pendulum with gSDE"] = default(name, action_distribution=gsde)[1]
tanh = {"bounds": "tanh"}
work["the same, Pendulum between tanh bounds"] = default(name, action_distribution=tanh)[1]
work["the same, two choices a step"] = default(Chooses)[1]
work["the same, a choice behind a mask"] = default(Masked, action_mask="info")[1]
agent, work["the same, with the previous action"] = default(previous_action=True)
work["100 x actor, one environment, with it"] = actor(agent.policy, None)
for pattern in "m", "s":
    agent, work["one rollout and update, " + pattern] = trainer(pattern)
    work["100 x act, 16 environments, " + pattern] = act(agent.policy)
    work["100 x actor, 16 environments, " + pattern] = actor(agent.policy, 16)
    work["100 x actor, one environment, " + pattern] = actor(agent.policy, None)
work = {name: run for name, run in work.items() if re.search(sys.argv[1], name)}
for run in work.values():
    run()
print("ready", flush=True)
for line in sys.stdin:
    seconds = {}
    for name, run in work.items():
        began = time.process_time()
        run()
        seconds[name] = time.process_time() - began
    print(json.dumps(seconds), flush=True)
"""


class Contender:
    """A process that works in one checkout when asked."""

    def __init__(self, checkout: Path, only: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, only],
            env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()  # built and warm

    def turn(self) -> dict[str, float]:
        """Take one turn; return the seconds of CPU of each piece of work."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds: dict[str, float] = json.loads(self._read())
        return seconds

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker ended with {self.process.wait()}")
        return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--turns", type=int, default=20, help="turns of each checkout")
    parser.add_argument("--only", default="", help="regular expression: work of these names")
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    before, after = (
        Contender(path.resolve(), arguments.only) for path in (arguments.before, arguments.after)
    )
    turns = []
    for turn in range(arguments.turns):
        if turn % 2:  # nobody is always first
            new, old = after.turn(), before.turn()
        else:
            old, new = before.turn(), after.turn()
        turns.append({"before": old, "after": new})
    print(f"{'milliseconds of CPU':42}{'before':>8}{'after':>8}{'speed':>8}")
    for name in turns[0]["before"]:
        old_ms, new_ms = (
            statistics.median(turn[side][name] for turn in turns) * 1e3
            for side in ("before", "after")
        )
        ratios = [turn["before"][name] / turn["after"][name] for turn in turns]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:42}{old_ms:8.1f}{new_ms:8.1f}{middle:8.2f}   ({low:.2f} to {high:.2f})")
    print("The speed is the median of the turns, with their quartiles.")
    if arguments.out:
        arguments.out.write_text(json.dumps(turns, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
