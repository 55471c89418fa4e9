"""Our memories in TorchRL beside its own: acting in a collector, and training on what it collected.

    python benchmarks/torchrl_modules.py [--rounds 6] [--only m "m, none"] [--out FILE.json]

CartPole without velocities in 16 environments of TorchRL, 64 steps a batch, width 64, one thread:
the same encoder, heads, collector, GAE and `ClipPPOLoss` around each memory, and our own loop with
as many updates. They take turns in a changing order, times are those of the CPU. GAE joins the
states of root and `next`, as it does by itself; within `set_lazy_legacy(True)` it does not, in the
rows with `lazily`. `none` is `sequence_states="none"`: sequences give no states.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tensordict import set_lazy_legacy
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.envs import GymEnv, SerialEnv, TransformedEnv
from torchrl.modules import (
    ActorValueOperator,
    GRUModule,
    LSTMModule,
    ProbabilisticActor,
    ValueOperator,
    set_recurrent_mode,
)
from torchrl.modules.utils import get_env_transforms_from_module
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import xlstm_rl.envs  # noqa: F401  (registers the ids)
from xlstm_rl import RecurrentPPO, XLSTMModule

ENVS, STEPS, WIDTH, UPDATES = 16, 64, 64, 2
KEYS = {"in_key": "embed", "out_key": "features"}


def ours(memory: dict[str, Any], **options: Any) -> Callable[[], nn.Module]:
    """Return what makes a module of ours."""
    return lambda: XLSTMModule(WIDTH, {"width": WIDTH, **memory}, **KEYS, **options)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "TorchRL's LSTMModule": lambda: LSTMModule(WIDTH, WIDTH, **KEYS),
    "TorchRL's GRUModule": lambda: GRUModule(WIDTH, WIDTH, **KEYS),
    "lstm": ours({"kind": "lstm"}),
    "gru": ours({"kind": "gru"}),
    "m": ours({"pattern": "m"}),
    "m, stacked lazily": ours({"pattern": "m"}),
    "m, none": ours({"pattern": "m"}, sequence_states="none"),
    "m, none, lazily": ours({"pattern": "m"}, sequence_states="none"),
    "s": ours({"pattern": "s"}),
}


class Learner:
    """A collector, value estimates and a loss around a memory."""

    def __init__(self, memory: nn.Module, lazy: bool) -> None:
        self.lazy = lazy
        encoder = nn.Sequential(nn.Linear(2, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())
        logits = TensorDictModule(nn.Linear(WIDTH, 2), in_keys=["features"], out_keys=["logits"])
        networks = ActorValueOperator(
            TensorDictSequential(
                TensorDictModule(encoder, in_keys=["observation"], out_keys=["embed"]), memory
            ),
            ProbabilisticActor(
                logits, in_keys=["logits"], distribution_class=Categorical, return_log_prob=True
            ),
            ValueOperator(nn.Linear(WIDTH, 1), in_keys=["features"]),
        )
        policy, critic = networks.get_policy_operator(), networks.get_value_operator()

        def make_env() -> TransformedEnv:
            env = GymEnv("xlstm_rl/CartPoleNoVel-v1", categorical_action_encoding=True)
            return TransformedEnv(env, get_env_transforms_from_module(policy))

        collector = Collector(
            SerialEnv(ENVS, make_env), policy, frames_per_batch=ENVS * STEPS, total_frames=-1
        )
        self.batches = iter(collector)
        self.loss = ClipPPOLoss(policy, critic)
        self.gae = GAE(gamma=0.99, lmbda=0.95, value_network=critic, deactivate_vmap=True)
        self.optimizer = torch.optim.Adam(self.loss.parameters(), 1e-4)

    def turn(self) -> dict[str, float]:
        """Collect a batch, estimate its values and train on it: seconds of each."""
        began = time.process_time()
        batch = next(self.batches)
        acted = time.process_time()
        with torch.no_grad(), set_recurrent_mode(True), set_lazy_legacy(self.lazy):
            self.gae(batch)
        estimated = time.process_time()
        for _ in range(UPDATES):
            self.optimizer.zero_grad()
            parts = self.loss(batch)
            total = parts["loss_objective"] + parts["loss_critic"] + parts["loss_entropy"]
            total.backward()
            self.optimizer.step()
        trained = time.process_time()
        return {
            "acting": acted - began,
            "values": estimated - acted,
            "update": (trained - estimated) / UPDATES,
            "all": trained - began,
        }


class Loop:
    """Our own collector and update around a memory, and as many updates of the whole batch."""

    def __init__(self, memory: dict[str, Any]) -> None:
        self.agent = RecurrentPPO(
            "xlstm_rl/CartPoleNoVel-v1",
            total_steps=1_000_000_000,
            env={"num_envs": ENVS, "vectorization": "sync"},
            memory={"width": WIDTH, **memory},
            policy={"critic": "shared"},
            agent={"rollout_steps": STEPS, "epochs": UPDATES, "minibatches": 1},
            logger={"kind": "none"},
        )

    def turn(self) -> dict[str, float]:
        """Collect a batch and train on it: seconds of both."""
        began = time.process_time()
        self.agent.learn(ENVS * STEPS)
        return {"all": time.process_time() - began}


LOOPS = {"our loop, lstm": {"kind": "lstm"}, "our loop, m": {"pattern": "m"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--only", nargs="+", choices=[*MODULES, *LOOPS], default=[*MODULES, *LOOPS])
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    learners: dict[str, Learner | Loop] = {
        name: Learner(make(), lazy="lazily" in name)
        for name, make in MODULES.items()
        if name in arguments.only
    }
    learners |= {name: Loop(memory) for name, memory in LOOPS.items() if name in arguments.only}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in learners}
    order = list(learners)
    for number in range(arguments.rounds + 1):
        random.Random(number).shuffle(order)
        for name in order:
            seconds = learners[name].turn()
            if number:  # the first turn warms up
                turns[name].append(seconds)
    print(f"{'':22}{'acting, steps/s':>16}{'values, ms':>12}{'update, ms':>12}{'all, steps/s':>14}")
    for name, each in turns.items():
        middle = {part: statistics.median(turn[part] for turn in each) for part in each[0]}
        parts = " " * 40
        if "acting" in middle:
            parts = f"{ENVS * STEPS / middle['acting']:16.0f}"
            parts += f"{middle['values'] * 1e3:12.1f}{middle['update'] * 1e3:12.1f}"
        print(f"{name:22}{parts}{ENVS * STEPS / middle['all']:14.0f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(turns, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
