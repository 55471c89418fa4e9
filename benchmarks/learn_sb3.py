"""Train sb3-contrib's RecurrentPPO on MuJoCo without velocities, beside `learn.py` with ours.

    python benchmarks/learn_sb3.py peers_hopper [--seeds 1]
    python benchmarks/learn_sb3.py halfcheetah --seeds 1    # a million steps

The settings are those of RL-Zoo (`hyperparams/ppo_lstm.yml`), observations and rewards normalised.
It has two sets: `bullet`, written for the same bodies in PyBullet (16 environments, LSTMs of 128),
and `mujoco`, written for version 3 of the tasks (one environment, LSTMs of 256, up to 20 epochs of
minibatches of 32 steps), which takes hours a seed on one thread. The task, the budget and the
evaluation (the last policy, 100 episodes, the most probable actions) are those of `learn.py`. A row
for each seed goes into `benchmarks/results/learning/<case>.sb3.csv`, and from there into the same
table. Needs the extras `bench` and `mujoco`.
"""

import argparse
import math
import shlex
import sys
import time
from typing import Any

import torch
from learning import results
from learning.tables import ALL
from torch import nn

from xlstm_rl.cli.compare import prepare
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.single_env import make_env

EPISODES = 100


class _Falling(float):
    """A number that falls to 0 with the last step."""


_DEEP = {
    "log_std_init": -2.0,
    "ortho_init": False,
    "activation_fn": nn.ReLU,
    "net_arch": {"pi": [256, 256], "vf": [256, 256]},
}
_MUJOCO = {"n_envs": 1, "n_steps": 512}
_BULLET = {
    "n_envs": 16,
    "n_steps": 256,
    "batch_size": 128,
    "gamma": 0.99,
    "gae_lambda": 0.9,
    "n_epochs": 10,
    "policy_kwargs": {
        "ortho_init": False,
        "activation_fn": nn.ReLU,
        "net_arch": {"pi": [], "vf": []},
        "lstm_hidden_size": 128,
    },
}
ZOO: dict[str, dict[str, dict[str, Any]]] = {
    "bullet": {
        "halfcheetah": _BULLET,
        "hopper": {**_BULLET, "clip_range": _Falling(0.4)},
        "walker2d": {**_BULLET, "clip_range": _Falling(0.4)},
    },
    "mujoco": {
        "halfcheetah": {
            **_MUJOCO,
            "batch_size": 64,
            "gamma": 0.98,
            "learning_rate": 2.0633e-05,
            "ent_coef": 0.000401762,
            "clip_range": 0.1,
            "n_epochs": 20,
            "gae_lambda": 0.92,
            "max_grad_norm": 0.8,
            "vf_coef": 0.58096,
            "policy_kwargs": _DEEP,
        },
        "hopper": {
            **_MUJOCO,
            "batch_size": 32,
            "gamma": 0.999,
            "learning_rate": 9.80828e-05,
            "ent_coef": 0.00229519,
            "clip_range": 0.2,
            "n_epochs": 5,
            "gae_lambda": 0.99,
            "max_grad_norm": 0.7,
            "vf_coef": 0.835671,
            "policy_kwargs": _DEEP,
        },
        "walker2d": {
            **_MUJOCO,
            "batch_size": 32,
            "gamma": 0.99,
            "learning_rate": 5.05041e-05,
            "ent_coef": 0.000585045,
            "clip_range": 0.1,
            "n_epochs": 20,
            "gae_lambda": 0.95,
            "max_grad_norm": 1.0,
            "vf_coef": 0.871923,
        },
    },
}

NAMES = [name for name in ALL if name.removeprefix("peers_") in ZOO["bullet"]]


def train(name: str, zoo: str, seed: int, total_steps: int) -> dict[str, Any]:
    """Return the row of one seed."""
    # here, so that --help needs no extra
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.utils import LinearSchedule
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    settings = {
        key: LinearSchedule(value, 0.0, 1.0) if isinstance(value, _Falling) else value
        for key, value in ZOO[zoo][name.removeprefix("peers_")].items()
    }
    words = [*shlex.split(ALL[name].options), "--out", "runs"]
    job = prepare(words).jobs[0]
    env = EnvConfig(**job.config["env"])
    vector = VecNormalize(
        DummyVecEnv([lambda: make_env(env)] * settings.pop("n_envs")), gamma=settings["gamma"]
    )
    vector.seed(seed)
    model = RecurrentPPO("MlpLstmPolicy", vector, seed=seed, device="cpu", **settings)
    start = time.perf_counter()
    model.learn(total_steps)
    seconds = time.perf_counter() - start
    vector.training = vector.norm_reward = False
    vector.seed(10_000 + seed)
    returns: Any = evaluate_policy(
        model, vector, EPISODES, deterministic=True, return_episode_rewards=True, warn=False
    )[0]
    return {
        "case": name,
        "memory": f"sb3-contrib: lstm, {zoo}",
        "seed": seed,
        "steps": model.num_timesteps,
        "return": math.fsum(returns) / EPISODES,
        "error": "",
        "seconds": round(seconds, 1),
        "weights": sum(weight.numel() for weight in model.policy.parameters()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("case", choices=NAMES)
    parser.add_argument("--settings", choices=ZOO, default="bullet", help="which of RL-Zoo's")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=2, help="how many, from the first one on")
    parser.add_argument("--total-steps", type=int, help="default: the budget of the case")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds: expected a number of seeds, at least 1, got {args.seeds}")
    torch.set_num_threads(1)
    command = shlex.join(["python", "benchmarks/learn_sb3.py", *sys.argv[1:]])
    rows = []
    for seed in range(args.seed, args.seed + args.seeds):
        rows.append(
            train(args.case, args.settings, seed, args.total_steps or ALL[args.case].total_steps)
        )
        print(rows[-1], flush=True)
        path = results.save(f"{args.case}.sb3", rows, command)
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
