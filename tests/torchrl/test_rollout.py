"""Rollouts of our agents in TorchRL's value estimators and losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential
from tensordict.nn import TensorDictModule as Module
from torch.distributions import Categorical
from torchrl.objectives import A2CLoss, ClipPPOLoss
from torchrl.objectives.value import GAE

from xlstm_rl import RecurrentPPO
from xlstm_rl.agents.ppo import ppo_loss
from xlstm_rl.torchrl.rollout import torchrl_rollout


def collected(autoreset: str) -> tuple[RecurrentPPO, Any]:
    agent = RecurrentPPO(
        "CartPole-v1",
        env={
            "num_envs": 4,
            "autoreset": autoreset,
            "vectorization": "sync",
            "max_episode_steps": 7,
        },
        memory={"width": 16, "num_heads": 2},
        policy={"head_width": 16},
        agent={
            "rollout_steps": 24,
            "minibatches": 1,
            "normalize_advantage": False,
            "step_baseline": False,
        },
        logger={"kind": "none"},
    )
    collector: Any = agent._make_collector()
    collector.collect()
    return agent, collector.collect()


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_torchrls_gae_on_our_rollout_is_our_gae(autoreset: str) -> None:
    agent, rollout = collected(autoreset)
    data = torchrl_rollout(rollout)
    config = agent.algorithm
    GAE(gamma=config.gamma, lmbda=config.gae_lambda, value_network=None)(data)
    ours, valid = agent._sequences(rollout), rollout.data["valid"]
    assert rollout.data["truncated"].any()
    for key, own in (("advantage", ours.advantage), ("value_target", ours.target)):
        torch.testing.assert_close(data[key].squeeze(-1)[valid], own[valid], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss_class", [ClipPPOLoss, A2CLoss])
def test_torchrls_losses_take_our_rollout_and_give_our_gradients(loss_class: type) -> None:
    agent, rollout = collected("same_step")
    config, network = agent.algorithm, agent.policy.network
    data = torchrl_rollout(rollout)
    GAE(gamma=config.gamma, lmbda=config.gae_lambda, value_network=None)(data)
    state = rollout.segment_states[0]

    def logits(x: torch.Tensor, reset: torch.Tensor) -> torch.Tensor:
        return network(x, state, reset.squeeze(-1))[0]

    def values(x: torch.Tensor, reset: torch.Tensor) -> torch.Tensor:
        return network(x, state, reset.squeeze(-1))[1].unsqueeze(-1)

    class Reads(torch.nn.Module):
        def __init__(self, call: Any) -> None:
            super().__init__()
            self.network, self.call = network, call

        def forward(self, x: torch.Tensor, reset: torch.Tensor) -> torch.Tensor:
            return self.call(x, reset)

    keys = ["observation", "is_init"]
    actor = ProbabilisticTensorDictSequential(
        Module(Reads(logits), in_keys=keys, out_keys=["logits"]),
        ProbabilisticTensorDictModule(
            ["logits"], ["action"], distribution_class=Categorical, return_log_prob=True
        ),
    )
    critic = Module(Reads(values), in_keys=keys, out_keys=["state_value"])
    assert config.entropy_coef > 0
    names = {"critic_coeff": config.value_coef, "loss_critic_type": "l2"}
    names["entropy_coeff"] = config.entropy_coef
    loss = loss_class(actor, critic, functional=False, **names)
    parts = loss(data)
    used = ("loss_objective", "loss_critic", "loss_entropy")
    total = sum(value for key, value in parts.items() if key in used)
    # our value loss has a factor of one half
    total = total - 0.5 * parts["loss_critic"]
    theirs = torch.autograd.grad(total, agent.parameters, allow_unused=True)
    batch = agent._sequences(rollout)
    params, value, _ = network(batch.observation, batch.state, batch.reset)
    log_prob, entropy = network.distribution.log_prob_and_entropy(params, batch.action)
    mine, _ = ppo_loss(batch, log_prob, entropy, value, 0.2, config)
    ours = torch.autograd.grad(mine, agent.parameters, allow_unused=True)
    # before the first step the ratio is 1, where PPO's gradient is A2C's
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
