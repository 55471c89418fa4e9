"""Recurrent PPO of TorchRL's parts, with `XLSTMModule` for `LSTMModule`; TorchRL 0.14 or newer."""

from collections.abc import Iterator

import torch
from tensordict import set_lazy_legacy
from tensordict.nn import TensorDictModule as Module
from tensordict.nn import TensorDictSequential as Sequential
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.envs import GymEnv, RewardScaling, RewardSum, SerialEnv, TransformedEnv
from torchrl.modules import ActorValueOperator, ProbabilisticActor, ValueOperator
from torchrl.modules import set_recurrent_mode as recurrent
from torchrl.modules.utils import get_env_transforms_from_module
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import xlstm_rl.envs  # noqa: F401 - registers the environment
from xlstm_rl import XLSTMModule

ENV_ID, NUM_ENVS, STEPS, EPOCHS, MINIBATCHES = "xlstm_rl/CartPoleNoVel-v1", 16, 128, 4, 4
WIDTH, LEARNING_RATE, MEMORY = 64, 1e-3, {"pattern": "m", "width": 64}


def make_networks(inputs: int, actions: int) -> ActorValueOperator:
    """Return actor and critic on one memory."""
    encoder = Module(nn.Sequential(nn.Linear(inputs, WIDTH), nn.Tanh()), ["observation"], ["embed"])
    memory = XLSTMModule(WIDTH, MEMORY, in_key="embed", out_key="features", sequence_states="none")
    options = {"distribution_class": Categorical, "return_log_prob": True}
    logits = Module(_head(actions, 0.01), ["features"], ["logits"])
    actor = ProbabilisticActor(logits, in_keys=["logits"], **options)
    value = ValueOperator(_head(1, 1.0), in_keys=["features"])
    return ActorValueOperator(Sequential(encoder, memory), actor, value)


def _head(outputs: int, gain: float) -> nn.Sequential:
    last = nn.Linear(WIDTH, outputs)
    nn.init.orthogonal_(last.weight, gain)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), last)


def train(total_steps: int, seed: int = 0) -> Iterator[float]:
    """Train, and yield after each update the mean return of the episodes that ended in it."""
    torch.manual_seed(seed)
    one = GymEnv(ENV_ID, categorical_action_encoding=True)
    both = make_networks(one.observation_spec["observation"].shape[-1], one.action_spec.space.n)
    policy, critic = both.get_policy_operator(), both.get_value_operator()

    def make_env() -> TransformedEnv:
        transforms = get_env_transforms_from_module(policy)  # first steps, and fresh states there
        env = TransformedEnv(GymEnv(ENV_ID, categorical_action_encoding=True), transforms)
        env.append_transform(RewardSum())
        return env.append_transform(RewardScaling(0.0, 0.02))  # or the critic drowns the actor

    env = SerialEnv(NUM_ENVS, make_env)
    env.set_seed(seed)
    options = {"entropy_coeff": 0.01, "critic_coeff": 0.5, "loss_critic_type": "l2"}
    loss = ClipPPOLoss(policy, critic, clip_epsilon=0.2, normalize_advantage=True, **options)
    gae = GAE(gamma=0.99, lmbda=0.95, value_network=critic, deactivate_vmap=True)
    optimizer = torch.optim.Adam(weights := [*loss.parameters()], LEARNING_RATE, eps=1e-5)
    rollouts = Collector(env, policy, frames_per_batch=NUM_ENVS * STEPS, total_frames=total_steps)
    for rollout in rollouts:  # [B, T]
        with torch.no_grad(), recurrent(True), set_lazy_legacy(True):  # joins no states
            gae(rollout)
        for rows in (r for _ in range(EPOCHS) for r in torch.randperm(NUM_ENVS).chunk(MINIBATCHES)):
            losses = loss(rollout[rows])
            optimizer.zero_grad()
            sum(part for name, part in losses.items() if name.startswith("loss_")).backward()
            nn.utils.clip_grad_norm_(weights, 0.5)
            optimizer.step()
        yield rollout["next", "episode_reward"][rollout["next", "done"]].mean().item()
    rollouts.shutdown()


if __name__ == "__main__":
    for update, episode_return in enumerate(train(150_000), 1):
        print(f"{update * NUM_ENVS * STEPS:>7} steps: return {episode_return:.1f}")
