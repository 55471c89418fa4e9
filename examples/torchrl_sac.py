"""Recurrent discrete SAC on TorchRL's collector and replay buffer, an xLSTM memory in each network.

python examples/torchrl_sac.py

The actor's states are stored while acting. The critics never act: theirs start from zeros, which
is right where a slice begins with its episode, as whole episodes of MemoryChain do. One pass of
each network over a slice gives the values of its steps and, shifted by one, of the next ones.
Christodoulou 2019 (arXiv:1910.07207).
"""

import copy
import sys
from collections.abc import Iterator

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, SliceSampler, TensorDictReplayBuffer
from torchrl.envs import GymEnv, RewardSum, SerialEnv, TransformedEnv
from torchrl.modules import OneHotCategorical, ProbabilisticActor, set_recurrent_mode
from torchrl.modules.utils import get_env_transforms_from_module

import xlstm_rl.envs  # noqa: F401 - registers the environment
from xlstm_rl import XLSTMModule

ENV_ID, LENGTH = "xlstm_rl/MemoryChain-v0", 10
EPISODE = LENGTH + 1
NUM_ENVS, STEPS, UPDATES, SLICES, WIDTH = 8, 33, 8, 32, 32
LEARNING_RATE, GAMMA, CAPACITY, TEMPERATURE = 1e-3, 0.9, 50_000, 0.02


def make_network(inputs: int, outputs: int, out_key: str) -> TensorDictSequential:
    """Return a memory and a linear layer on it."""
    memory = XLSTMModule(
        inputs, {"width": WIDTH}, in_key="observation", out_key="features", interior_ends=False
    )
    head = TensorDictModule(nn.Linear(WIDTH, outputs), ["features"], [out_key])
    return TensorDictSequential(memory, head)


def train(total_steps: int, seed: int = 0) -> Iterator[float]:
    """Train, and yield after each batch the mean return of the episodes that ended in it."""
    torch.manual_seed(seed)
    one = GymEnv(ENV_ID, length=LENGTH)
    inputs, actions = one.observation_spec["observation"].shape[-1], one.action_spec.space.n
    acting = make_network(inputs, actions, "logits")
    critics = [make_network(inputs, actions, "action_value") for _ in range(2)]
    targets = copy.deepcopy(critics)
    actor = ProbabilisticActor(
        acting, in_keys=["logits"], distribution_class=OneHotCategorical, spec=one.action_spec
    )

    def make_env() -> TransformedEnv:
        env = GymEnv(ENV_ID, length=LENGTH)
        env = TransformedEnv(env, get_env_transforms_from_module(acting))
        return env.append_transform(RewardSum())

    env = SerialEnv(NUM_ENVS, make_env)
    env.set_seed(seed)
    weights = [weight for network in (acting, *critics) for weight in network.parameters()]
    optimizer = torch.optim.Adam(weights, LEARNING_RATE)
    replay = TensorDictReplayBuffer(
        storage=LazyTensorStorage(CAPACITY),
        sampler=SliceSampler(slice_len=EPISODE, end_key=("next", "done"), strict_length=True),
        batch_size=SLICES * EPISODE,
    )
    rollouts = Collector(env, actor, frames_per_batch=NUM_ENVS * STEPS, total_frames=total_steps)
    for rollout in rollouts:  # [B, T]
        ended = rollout["next", "done"]
        yield rollout["next", "episode_reward"][ended].mean().item()
        replay.extend(rollout.exclude(("next", "recurrent_state")).reshape(-1))
        if len(replay) < 10 * NUM_ENVS * STEPS:
            continue
        for _ in range(UPDATES):
            batch = replay.sample().reshape(SLICES, EPISODE)
            optimizer.zero_grad()
            total_loss(batch, acting, critics, targets).backward()
            nn.utils.clip_grad_norm_(weights, 10.0)
            optimizer.step()
            for slow, fast in zip(targets, critics, strict=True):
                with torch.no_grad():
                    torch._foreach_lerp_([*slow.parameters()], [*fast.parameters()], 0.01)
    rollouts.shutdown()


def total_loss(
    batch: TensorDictBase,
    acting: TensorDictSequential,
    critics: list[TensorDictSequential],
    targets: list[TensorDictSequential],
) -> torch.Tensor:
    """Return the losses of actor and critics on whole episodes `[N, T]`."""
    unseen = batch.clone(False)
    unseen["recurrent_state"] = torch.zeros_like(batch["recurrent_state"])
    with set_recurrent_mode(True):
        log_probs = acting(batch.clone(False))["logits"].log_softmax(-1)  # [N, T, A]
        values = [critic(unseen.clone(False))["action_value"] for critic in critics]
        with torch.no_grad():
            slow = [critic(unseen.clone(False))["action_value"] for critic in targets]
    probs, least = log_probs.exp(), torch.minimum(*values).detach()
    actor_loss = (probs * (TEMPERATURE * log_probs - least)).sum(-1).mean()
    with torch.no_grad():
        worth = (probs * (torch.minimum(*slow) - TEMPERATURE * log_probs)).sum(-1, keepdim=True)
        worth = torch.cat((worth[:, 1:], torch.zeros_like(worth[:, :1])), 1)  # of the next step
        worth = worth.masked_fill(batch["next", "terminated"], 0.0)
        target = batch["next", "reward"] + GAMMA * worth
    chosen = [(value * batch["action"]).sum(-1, keepdim=True) for value in values]
    return torch.stack([actor_loss, *((one - target).square().mean() for one in chosen)]).sum()


if __name__ == "__main__":
    total = int((sys.argv[1:] or ["40000"])[0])
    for batch, found in enumerate(train(total), 1):
        if batch % 10 == 0:
            print(f"{batch * NUM_ENVS * STEPS:>7} steps: return {found:.2f}", flush=True)
