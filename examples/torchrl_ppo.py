"""Recurrent PPO in TorchRL's own parts, with `XLSTMModule` where `LSTMModule` would stand.

python examples/torchrl_ppo.py    # with TorchRL 0.14 or newer
"""

from collections.abc import Iterator

import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.envs import GymEnv, RewardScaling, RewardSum, SerialEnv, TransformedEnv
from torchrl.modules import (
    ActorValueOperator,
    ProbabilisticActor,
    ValueOperator,
    set_recurrent_mode,
)
from torchrl.modules.utils import get_env_transforms_from_module
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import xlstm_rl.envs  # noqa: F401 - registers the environment
from xlstm_rl import XLSTMModule

ENV_ID, NUM_ENVS, STEPS, EPOCHS, MINIBATCHES = "xlstm_rl/CartPoleNoVel-v1", 16, 128, 4, 4
WIDTH, LEARNING_RATE = 64, 1e-3


def make_networks(inputs: int, actions: int) -> ActorValueOperator:
    """Return actor and critic on one memory."""
    encoder = nn.Sequential(nn.Linear(inputs, WIDTH), nn.Tanh())
    memory = XLSTMModule(
        WIDTH,
        {"pattern": "m", "width": WIDTH},
        in_key="embed",
        out_key="features",
        interior_ends=False,  # no loss reads them
    )
    common = TensorDictSequential(
        TensorDictModule(encoder, in_keys=["observation"], out_keys=["embed"]), memory
    )
    actor = ProbabilisticActor(
        TensorDictModule(_head(actions, 0.01), in_keys=["features"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=Categorical,
        return_log_prob=True,
    )
    value = ValueOperator(_head(1, 1.0), in_keys=["features"])
    return ActorValueOperator(common, actor, value)


def _head(outputs: int, gain: float) -> nn.Sequential:
    last = nn.Linear(WIDTH, outputs)
    nn.init.orthogonal_(last.weight, gain)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), last)


def train(total_steps: int, seed: int = 0) -> Iterator[float]:
    """Train, and yield after each update the mean return of the episodes that ended in it."""
    torch.manual_seed(seed)
    one = GymEnv(ENV_ID, categorical_action_encoding=True)
    inputs, actions = one.observation_spec["observation"].shape[-1], one.action_spec.space.n
    both = make_networks(inputs, actions)
    policy, critic = both.get_policy_operator(), both.get_value_operator()

    def make_env() -> TransformedEnv:
        env = GymEnv(ENV_ID, categorical_action_encoding=True)
        # where episodes start, and a fresh state there
        env = TransformedEnv(env, get_env_transforms_from_module(policy))
        env.append_transform(RewardSum())
        # values near 1, so that the critic does not drown the actor in the memory that they share
        return env.append_transform(RewardScaling(0.0, 0.02))

    env = SerialEnv(NUM_ENVS, make_env)
    env.set_seed(seed)
    loss = ClipPPOLoss(
        policy,
        critic,
        clip_epsilon=0.2,
        entropy_coeff=0.01,
        critic_coeff=0.5,
        loss_critic_type="l2",
        normalize_advantage=True,
    )
    gae = GAE(gamma=0.99, lmbda=0.95, value_network=critic, deactivate_vmap=True)
    weights = list(loss.parameters())
    optimizer = torch.optim.Adam(weights, LEARNING_RATE, eps=1e-5)
    rollouts = Collector(env, policy, frames_per_batch=NUM_ENVS * STEPS, total_frames=total_steps)
    for rollout in rollouts:  # [B, T]
        with torch.no_grad(), set_recurrent_mode(True):
            gae(rollout)
        for _ in range(EPOCHS):
            for rows in torch.randperm(NUM_ENVS).view(MINIBATCHES, -1):
                losses = loss(rollout[rows])
                total = sum(part for name, part in losses.items() if name.startswith("loss_"))
                optimizer.zero_grad()
                total.backward()
                nn.utils.clip_grad_norm_(weights, 0.5)
                optimizer.step()
        ended = rollout["next", "done"]
        yield rollout["next", "episode_reward"][ended].mean().item()
    rollouts.shutdown()


if __name__ == "__main__":
    for update, episode_return in enumerate(train(150_000), 1):
        print(f"{update * NUM_ENVS * STEPS:>7} steps: return {episode_return:.1f}")
