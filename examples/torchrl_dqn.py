"""Recurrent DQN (R2D2) in TorchRL's own parts: stored states, burn-in, prioritised slices.

python examples/torchrl_dqn.py                      # MemoryChain: whole episodes
python examples/torchrl_dqn.py RepeatPrevious       # slices of long episodes, burnt in

Kapturowski et al. 2019 (R2D2): double Q-learning, where one pass of each network over a slice gives
the values of its steps and, shifted by one, of the next ones. (`DQNLoss` would run the next
observations as a sequence of their own, which begins without the memory of the first.)
"""

import copy
import sys
from collections.abc import Iterator

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torch.optim import Adam
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, PrioritizedSliceSampler, SliceSampler
from torchrl.data import TensorDictReplayBuffer as ReplayBuffer
from torchrl.envs import BurnInTransform, GymEnv, RewardSum, SerialEnv, TransformedEnv
from torchrl.modules import EGreedyModule, QValueActor, set_recurrent_mode
from torchrl.modules.utils import get_env_transforms_from_module

import xlstm_rl.envs  # noqa: F401 - registers the environments
from xlstm_rl import XLSTMModule

# an environment, its arguments, the length of a slice, and how much of it is burn-in
TASKS = {
    "MemoryChain": ("xlstm_rl/MemoryChain-v0", {"length": 10}, 11, 0),
    "RepeatPrevious": ("xlstm_rl/RepeatPrevious-v0", {}, 24, 8),
}
NUM_ENVS, STEPS, UPDATES, SLICES, WIDTH = 8, 32, 8, 32, 32
LEARNING_RATE, GAMMA, CAPACITY = 1e-3, 0.9, 50_000


def make_sampler(slice_len: int) -> SliceSampler:
    """Return prioritised slices, or uniform ones where TorchRL's C++ extension is missing."""
    ends = {"slice_len": slice_len, "end_key": ("next", "done")}
    try:  # beta is 0: the errors are not weighted
        return PrioritizedSliceSampler(CAPACITY, alpha=0.6, beta=0.0, **ends)
    except RuntimeError:
        return SliceSampler(**ends)


def train(task: str, total_steps: int, seed: int = 0) -> Iterator[float]:
    """Train, and yield after each batch the mean return of the episodes that ended in it."""
    torch.manual_seed(seed)
    env_id, kwargs, slice_len, burnt_in = TASKS[task]
    one = GymEnv(env_id, **kwargs)
    inputs, actions = one.observation_spec["observation"].shape[-1], one.action_spec.space.n
    numbers = TensorDictModule(torch.Tensor.float, ["observation"], ["numbers"])  # choices are int
    memory = XLSTMModule(
        inputs, {"width": WIDTH}, in_key="numbers", out_key="features", sequence_states="last"
    )
    head = TensorDictModule(nn.Linear(WIDTH, actions), ["features"], ["action_value"])
    network = TensorDictSequential(numbers, memory, head)
    q_values = QValueActor(network, in_keys=network.in_keys, spec=one.action_spec)
    explore = EGreedyModule(one.action_spec, annealing_num_steps=total_steps // 2, eps_end=0.02)

    def make_env() -> TransformedEnv:
        transforms = get_env_transforms_from_module(memory)
        return TransformedEnv(GymEnv(env_id, **kwargs), transforms).append_transform(RewardSum())

    env, target = SerialEnv(NUM_ENVS, make_env), copy.deepcopy(network)
    env.set_seed(seed)
    policy = TensorDictSequential(q_values, explore)
    adam = Adam(q_values.parameters(), LEARNING_RATE)
    replay = ReplayBuffer(
        storage=LazyTensorStorage(CAPACITY),
        sampler=make_sampler(slice_len),
        batch_size=SLICES * slice_len,
        priority_key="error",
    )
    rollouts = Collector(env, policy, frames_per_batch=NUM_ENVS * STEPS, total_frames=total_steps)
    for rollout in rollouts:  # [B, T]
        explore.step(rollout.numel())
        ended = rollout["next", "done"]
        if ended.any():
            yield rollout["next", "episode_reward"][ended].mean().item()
        rollout["next", "done"][:, -1] = True  # the next batch is stored elsewhere
        replay.extend(rollout.exclude(("next", "recurrent_state")).reshape(-1))
        if len(replay) < 10 * NUM_ENVS * STEPS:
            continue
        for _ in range(UPDATES):
            slices = replay.sample().reshape(SLICES, slice_len)
            batch = BurnInTransform([memory], burnt_in)(slices) if burnt_in else slices
            errors = td_errors(batch, network, target)
            adam.zero_grad()
            errors.square().mean().backward()
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            adam.step()
            slices["error"] = nn.functional.pad(errors.detach().abs(), (0, 0, burnt_in, 0))
            with torch.no_grad():
                torch._foreach_lerp_([*target.parameters()], [*network.parameters()], 0.01)
            replay.update_tensordict_priority(slices.reshape(-1))
    rollouts.shutdown()


def td_errors(batch: TensorDictBase, network: nn.Module, target: nn.Module) -> Tensor:
    """Return the errors `[N, T, 1]` of slices `[N, T]`; 0 where the next step is not in a slice."""
    with set_recurrent_mode(True):
        values = network(batch.clone(False))["action_value"]  # [N, T, A]
        with torch.no_grad():
            slow = target(batch.clone(False))["action_value"]
    chosen = (values * batch["action"]).sum(-1, keepdim=True)
    best = slow.gather(-1, values.detach().argmax(-1, keepdim=True))
    best = torch.cat((best[:, 1:], torch.zeros_like(best[:, :1])), 1)  # of the next step
    over = batch["next", "terminated"]
    known = over.index_fill(1, torch.arange(over.shape[1] - 1), True)
    return torch.mul(batch["next", "reward"] + GAMMA * best.masked_fill(over, 0.0) - chosen, known)


if __name__ == "__main__":
    for batch, found in enumerate(train((sys.argv[1:] or ["MemoryChain"])[0], 51_200), 1):
        if batch % 10 == 0:
            print(f"batch {batch}: return {found:.2f}", flush=True)
