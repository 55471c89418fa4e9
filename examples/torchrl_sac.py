"""Recurrent discrete SAC on TorchRL's collector and replay buffer, an xLSTM memory in each network.

python examples/torchrl_sac.py                      # MemoryChain
python examples/torchrl_sac.py RepeatPrevious       # an answer at each step

The actor's states are stored while acting. The critics never act: theirs start from zeros, which
is right where a slice begins with its episode, as whole episodes do. One pass of each network over
a slice gives the values of its steps and, shifted by one, of the next ones. The temperature is
small beside the reward of one answer. Christodoulou 2019 (arXiv:1910.07207).
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

# an environment, its arguments, the steps of an episode and of a batch, and the temperature
TASKS = {
    "MemoryChain": ("xlstm_rl/MemoryChain-v0", {"length": 10}, 11, 33, 0.02),
    "RepeatPrevious": ("xlstm_rl/RepeatPrevious-v0", {}, 51, 51, 0.004),
}
NUM_ENVS, UPDATES, SLICES, WIDTH = 8, 8, 32, 32
LEARNING_RATE, GAMMA, CAPACITY = 1e-3, 0.9, 50_000
Networks = list[TensorDictSequential]


def make_network(inputs: int, outputs: int, out_key: str) -> TensorDictSequential:
    """Return a memory and a linear layer on it."""
    numbers = TensorDictModule(torch.Tensor.float, ["observation"], ["numbers"])  # choices are int
    memory = XLSTMModule(
        inputs, {"width": WIDTH}, in_key="numbers", out_key="features", sequence_states="none"
    )
    head = TensorDictModule(nn.Linear(WIDTH, outputs), ["features"], [out_key])
    return TensorDictSequential(numbers, memory, head)


def train(task: str, total_steps: int, seed: int = 0) -> Iterator[float]:
    """Train, and yield after each batch the mean return of the episodes that ended in it."""
    torch.manual_seed(seed)
    env_id, kwargs, episode, steps, temperature = TASKS[task]
    one = GymEnv(env_id, **kwargs)
    inputs, actions = one.observation_spec["observation"].shape[-1], one.action_spec.space.n
    acting = make_network(inputs, actions, "logits")
    critics = [make_network(inputs, actions, "action_value") for _ in range(2)]
    targets = copy.deepcopy(critics)
    actor = ProbabilisticActor(
        acting, in_keys=["logits"], distribution_class=OneHotCategorical, spec=one.action_spec
    )

    def make_env() -> TransformedEnv:
        transforms = get_env_transforms_from_module(acting)
        return TransformedEnv(GymEnv(env_id, **kwargs), transforms).append_transform(RewardSum())

    env = SerialEnv(NUM_ENVS, make_env)
    env.set_seed(seed)
    weights = [weight for network in (acting, *critics) for weight in network.parameters()]
    optimizer = torch.optim.Adam(weights, LEARNING_RATE)
    replay = TensorDictReplayBuffer(
        storage=LazyTensorStorage(CAPACITY),
        sampler=SliceSampler(slice_len=episode, end_key=("next", "done"), strict_length=True),
        batch_size=SLICES * episode,
    )
    rollouts = Collector(env, actor, frames_per_batch=NUM_ENVS * steps, total_frames=total_steps)
    for rollout in rollouts:  # [B, T]
        ended = rollout["next", "done"]
        yield rollout["next", "episode_reward"][ended].mean().item()
        replay.extend(rollout.exclude(("next", "recurrent_state")).reshape(-1))
        if len(replay) < 10 * NUM_ENVS * steps:
            continue
        for _ in range(UPDATES):
            batch = replay.sample().reshape(SLICES, episode)
            optimizer.zero_grad()
            total_loss(batch, acting, critics, targets, temperature).backward()
            nn.utils.clip_grad_norm_(weights, 10.0)
            optimizer.step()
            with torch.no_grad():
                for slow, fast in zip(targets, critics, strict=True):
                    torch._foreach_lerp_([*slow.parameters()], [*fast.parameters()], 0.01)
    rollouts.shutdown()


def total_loss(
    batch: TensorDictBase, acting: nn.Module, critics: Networks, targets: Networks, alpha: float
) -> torch.Tensor:
    """Return the losses on whole episodes `[N, T]` at a temperature `alpha`."""
    unseen = batch.clone(False)
    unseen["recurrent_state"] = torch.zeros_like(batch["recurrent_state"])
    with set_recurrent_mode(True):
        log_probs = acting(batch.clone(False))["logits"].log_softmax(-1)  # [N, T, A]
        values = [critic(unseen.clone(False))["action_value"] for critic in critics]
        with torch.no_grad():
            slow = [critic(unseen.clone(False))["action_value"] for critic in targets]
    probs, least = log_probs.exp(), torch.minimum(*values).detach()
    actor_loss = (probs * (alpha * log_probs - least)).sum(-1).mean()
    with torch.no_grad():
        worth = (probs * (torch.minimum(*slow) - alpha * log_probs)).sum(-1, keepdim=True)
        worth = torch.cat((worth[:, 1:], torch.zeros_like(worth[:, :1])), 1)  # of the next step
        worth = worth.masked_fill(batch["next", "terminated"], 0.0)
        target = batch["next", "reward"] + GAMMA * worth
    chosen = [(value * batch["action"]).sum(-1, keepdim=True) for value in values]
    return torch.stack([actor_loss, *((one - target).square().mean() for one in chosen)]).sum()


if __name__ == "__main__":
    for batch, found in enumerate(train((sys.argv[1:] or ["MemoryChain"])[0], 61_200), 1):
        if batch % 10 == 0:
            print(f"batch {batch}: return {found:.2f}", flush=True)
