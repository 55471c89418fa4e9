"""TorchRL's parts put together as its documentation does: collector, `LSTMModule`, `ClipPPOLoss`.

Encoder and LSTM are common to actor and critic (`ActorValueOperator`). While acting the LSTM takes
one step, in the loss it runs over sequences and resets its state where an episode begins.
"""

import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.envs import Compose, GymEnv, InitTracker, SerialEnv, TransformedEnv
from torchrl.modules import (
    ActorValueOperator,
    LSTMModule,
    ProbabilisticActor,
    ValueOperator,
    set_recurrent_mode,
)
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import xlstm_rl.envs  # noqa: F401 - registers the environment
from peers import Sizes


class TorchRL:
    """A training loop of TorchRL's parts."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        torch.manual_seed(0)
        lstm = LSTMModule(64, sizes.width, in_key="embed", out_key="features")

        def one() -> TransformedEnv:
            env = GymEnv(sizes.env_id, categorical_action_encoding=True)
            return TransformedEnv(env, Compose(InitTracker(), lstm.make_tensordict_primer()))

        env = SerialEnv(sizes.num_envs, one)
        inputs, actions = env.observation_spec["observation"].shape[-1], env.action_spec.space.n
        encoder = nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        common = TensorDictSequential(
            TensorDictModule(encoder, in_keys=["observation"], out_keys=["embed"]), lstm
        )
        head = nn.Linear(sizes.width, actions)
        actor = ProbabilisticActor(
            TensorDictModule(head, in_keys=["features"], out_keys=["logits"]),
            in_keys=["logits"],
            distribution_class=Categorical,
            return_log_prob=True,
        )
        value = ValueOperator(nn.Linear(sizes.width, 1), in_keys=["features"])
        both = ActorValueOperator(common, actor, value)
        policy, critic = both.get_policy_operator(), both.get_value_operator()
        self.loss = ClipPPOLoss(
            policy,
            critic,
            clip_epsilon=0.2,
            entropy_coeff=0.01,
            critic_coeff=0.5,
            loss_critic_type="l2",
            normalize_advantage=True,
        )
        self.gae = GAE(gamma=0.99, lmbda=0.95, value_network=critic, shifted=True)
        weights = list(self.loss.parameters())
        self.weights, self.parameters = weights, sum(p.numel() for p in both.parameters())
        self.optimizer = torch.optim.Adam(weights, 3e-4)
        self.rollouts = iter(
            Collector(env, policy, frames_per_batch=sizes.per_rollout, total_frames=-1)
        )

    def __call__(self, steps: int) -> None:
        """Train."""
        for _ in range(steps // self.sizes.per_rollout):
            self.update()

    def update(self) -> None:
        """Collect one rollout and learn from it."""
        sizes, rollout = self.sizes, next(self.rollouts)  # [B, T]
        with set_recurrent_mode(True):
            with torch.no_grad():
                self.gae(rollout)
            for _ in range(sizes.epochs):
                for rows in torch.randperm(sizes.num_envs).view(sizes.minibatches, -1):
                    losses = self.loss(rollout[rows])
                    loss = sum(part for name, part in losses.items() if name.startswith("loss_"))
                    self.optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(self.weights, 0.5)
                    self.optimizer.step()


make = TorchRL
