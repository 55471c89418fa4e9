"""Recurrent PPO in one file of plain PyTorch, the way that CleanRL's LSTM agent is written.

One encoder and one `nn.LSTM` feed two heads. A minibatch is a set of whole environments; the
update steps the LSTM through the rollout and zeroes its state where an episode begins.
"""

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import xlstm_rl.envs  # noqa: F401 - registers the environment
from peers import Sizes

GAMMA, LAMBDA, CLIP = 0.99, 0.95, 0.2

State = tuple[Tensor, Tensor]


def orthogonal(layer: nn.Linear, gain: float = 2**0.5) -> nn.Linear:
    """Draw weights as PPO implementations do."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class Network(nn.Module):
    """Encoder, LSTM, heads."""

    def __init__(self, inputs: int, actions: int, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            orthogonal(nn.Linear(inputs, 64)), nn.Tanh(), orthogonal(nn.Linear(64, 64)), nn.Tanh()
        )
        self.lstm = nn.LSTM(64, width)
        self.actor = orthogonal(nn.Linear(width, actions), 0.01)
        self.critic = orthogonal(nn.Linear(width, 1), 1.0)

    def forward(self, x: Tensor, state: State, first: Tensor) -> tuple[Tensor, Tensor, State]:
        """Run x [T, B, n] with first [T, B]; logits [T, B, A], values [T, B], the state after."""
        features = self.encoder(x)
        hidden = []
        for row, begins in zip(features, first, strict=True):
            keep = (1.0 - begins)[None, :, None]
            out, state = self.lstm(row[None], (keep * state[0], keep * state[1]))
            hidden.append(out)
        h = torch.cat(hidden)
        return self.actor(h), self.critic(h).squeeze(-1), state


class PlainLSTM:
    """A training loop."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.envs = gymnasium.make_vec(
            sizes.env_id, num_envs=sizes.num_envs, vectorization_mode="sync"
        )
        space = self.envs.single_observation_space
        assert space.shape is not None
        torch.manual_seed(0)
        actions = int(self.envs.single_action_space.n)  # type: ignore[attr-defined]
        self.network = Network(int(np.prod(space.shape)), actions, sizes.width)
        self.parameters = sum(p.numel() for p in self.network.parameters())
        self.optimizer = torch.optim.Adam(self.network.parameters(), 2.5e-4, eps=1e-5)
        self.obs = torch.from_numpy(self.envs.reset(seed=0)[0])
        self.first = torch.ones(sizes.num_envs)
        zeros = torch.zeros(1, sizes.num_envs, sizes.width)
        self.state: State = (zeros, zeros)

    def __call__(self, steps: int) -> None:
        """Train."""
        for _ in range(steps // self.sizes.per_rollout):
            self.update()

    def update(self) -> None:
        """Collect one rollout and learn from it."""
        sizes, network = self.sizes, self.network
        start, rows = self.state, []
        for _ in range(sizes.steps):
            with torch.no_grad():
                logits, value, self.state = network(self.obs[None], self.state, self.first[None])
            distribution = Categorical(logits=logits[0])
            action = distribution.sample()
            obs, reward, terminated, truncated, _ = self.envs.step(action.numpy())
            done = torch.from_numpy(terminated | truncated).float()
            rows.append(
                (
                    self.obs,
                    self.first,
                    action,
                    distribution.log_prob(action),
                    value[0],
                    torch.from_numpy(np.asarray(reward, np.float32)),
                )
            )
            self.obs, self.first = torch.from_numpy(obs), done
        x, first, action, log_prob, value, reward = (
            torch.stack(column) for column in zip(*rows, strict=True)
        )
        with torch.no_grad():
            _, last, _ = network(self.obs[None], self.state, self.first[None])
            advantage = self.advantages(reward, value, last[0], first)
        target = advantage + value
        for _ in range(sizes.epochs):
            order = torch.randperm(sizes.num_envs)
            for rows_ in order.view(sizes.minibatches, -1):
                logits, found, _ = network(
                    x[:, rows_], (start[0][:, rows_], start[1][:, rows_]), first[:, rows_]
                )
                distribution = Categorical(logits=logits)
                ratio = (distribution.log_prob(action[:, rows_]) - log_prob[:, rows_]).exp()
                gain = advantage[:, rows_]
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
                loss = -torch.minimum(ratio * gain, clipped * gain).mean()
                loss = loss + 0.25 * (found - target[:, rows_]).square().mean()
                loss = loss - 0.01 * distribution.entropy().mean()
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 0.5)
                self.optimizer.step()

    def advantages(self, reward: Tensor, value: Tensor, last: Tensor, first: Tensor) -> Tensor:
        """Generalised advantages [T, B]."""
        out, carried = torch.zeros_like(reward), torch.zeros_like(last)
        next_value, next_first = last, self.first
        for t in reversed(range(len(reward))):
            goes_on = 1.0 - next_first
            delta = reward[t] + GAMMA * next_value * goes_on - value[t]
            carried = delta + GAMMA * LAMBDA * goes_on * carried
            out[t] = carried
            next_value, next_first = value[t], first[t]
        return out


make = PlainLSTM
