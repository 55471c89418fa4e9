"""A weight that is made of others, as torch's parametrizations do, is read as it stands."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from xlstm_rl import RecurrentPPO
from xlstm_rl.policy.actor_critic import ActorCritic

OBSERVATION = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))


class Double(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2.0 * weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / 2.0


def _agent(kind: str, pattern: str) -> RecurrentPPO:
    memory = {"kind": kind, "width": 16} | ({"pattern": pattern} if kind == "xlstm" else {})
    return RecurrentPPO(
        "xlstm_rl/CartPoleNoVel-v1",
        env={"num_envs": 2},
        memory=memory,
        agent={"rollout_steps": 8, "epochs": 1},
        logger={"kind": "none"},
    )


def _parametrize(network: ActorCritic, part: str) -> None:
    parts = {"memory": network.trunk.memory, "encoder": network.trunk.encoder}
    root = {**parts, "head": network.action_head}[part]
    module, name = next(
        (module, name)
        for module in root.modules()
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim > 1
    )
    parametrize.register_parametrization(module, name, Double())


@pytest.mark.parametrize("part", ["memory", "encoder", "head"])
@pytest.mark.parametrize(
    ("kind", "pattern"), [("xlstm", "m"), ("xlstm", "s"), ("lstm", ""), ("gru", "")]
)
def test_it_acts_and_learns(kind: str, pattern: str, part: str) -> None:
    agent = _agent(kind, pattern)
    network = agent.policy.network
    with torch.no_grad():
        plain = network(OBSERVATION, network.initial_tensors(2), None)[0]
        _parametrize(network, part)
        outputs = network(OBSERVATION, network.initial_tensors(2), None)[0]
        torch.testing.assert_close(outputs, plain)  # halved where it is kept, doubled where read
        state = network.initial_tensors(2)
        for t in range(OBSERVATION.shape[1]):
            step, state = network.action_step(OBSERVATION[:, t], state, None)
            torch.testing.assert_close(step, outputs[:, t])
    agent.parameters = list(network.parameters())
    agent.optimizer = agent.make_optimizer()
    before = [weight.clone() for weight in agent.parameters]
    agent.learn(16)
    assert all(map(torch.isfinite, [weight.sum() for weight in agent.parameters]))
    changed = [not torch.equal(*pair) for pair in zip(before, agent.parameters, strict=True)]
    assert any(changed)
    original = [n for n, _ in network.named_parameters() if n.endswith("original")]
    names = [name for name, _ in network.named_parameters()]
    assert original and all(changed[names.index(name)] for name in original)
