from typing import Any

import pytest
import torch
from torch import nn

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents import A2CConfig, PPOConfig, TrainConfig
from xlstm_rl.agents.optimizers import torch_optimizer
from xlstm_rl.config import ConfigError, parse_config

SMALL: dict[str, Any] = {"env": {"num_envs": 2}, "memory": {"width": 8, "num_heads": 2}}
EVERY = sorted(
    name
    for name, one in vars(torch.optim).items()
    if isinstance(one, type)
    and issubclass(one, torch.optim.Optimizer)
    and name not in ("Optimizer", "LBFGS", "SparseAdam")
)


@pytest.mark.parametrize("name", EVERY)
def test_every_optimiser_of_torch_takes_the_steps_of_torch(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)
    theirs.load_state_dict(ours.state_dict())
    kwargs = {} if name == "Rprop" else {"weight_decay": 0.1}
    made = torch_optimizer(name, kwargs, list(ours.parameters()), 0.01)
    expected = getattr(torch.optim, name)(theirs.parameters(), lr=0.01, **kwargs)
    x = torch.randn(5, 3)
    for _ in range(3):
        for layer, optimizer in ((ours, made), (theirs, expected)):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("AdamW", {"weight_decay": 0.1, "betas": [0.8, 0.9]}),
        ("SGD", {"momentum": 0.9}),
        ("RMSprop", {}),
    ],
)
def test_agents_train_with_them(algorithm: Any, name: str, kwargs: dict[str, Any]) -> None:
    options = {"optimizer": name, "optimizer_kwargs": kwargs}
    if algorithm is RecurrentPPO:
        options["minibatches"] = 1
    agent = algorithm("CartPole-v1", **SMALL, agent=options, logger={"kind": "none"})
    assert type(agent.optimizer) is getattr(torch.optim, name)
    before = [p.detach().clone() for p in agent.parameters]
    agent.learn(1)
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.parameters, strict=True))


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ({"optimizer": "adamw"}, r"optimizer='adamw': expected adam, or .*did you mean AdamW\?"),
        ({"optimizer": "AdamV"}, r"torch\.optim has no such optimiser; did you mean Adam"),
        ({"optimizer": "LBFGS"}, r"optimizer=LBFGS: it evaluates the loss several times a step"),
        (
            {"optimizer": "AdamW", "optimizer_kwargs": {"weight_decai": 1}},
            r"optimizer_kwargs\.weight_decai: no argument .*AdamW; did you mean weight_decay\?",
        ),
        (
            {"optimizer": "AdamW", "optimizer_kwargs": {"lr": 1}},
            r"optimizer_kwargs\.lr: not set there; set agent\.learning_rate",
        ),
        (
            {"optimizer": "AdamW", "optimizer_kwargs": {"betas": [2, 0.9]}},
            r"agent\.optimizer=AdamW: Invalid beta",
        ),
        ({"optimizer_kwargs": {"eps": 1}}, r"optimizer_kwargs=.*agent\.optimizer is adam"),
        ({"optimizer": "SGD", "adam_eps": 0.1}, r"adam_eps=0\.1: .*agent\.optimizer is SGD"),
        ({"optimizer": "Muon"}, r"agent\.optimizer='?Muon"),  # of matrices alone, or not there
    ],
)
def test_what_cannot_be_is_one_line(agent: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        RecurrentPPO("CartPole-v1", **SMALL, agent={"minibatches": 1, **agent})
    assert "\n" not in str(caught.value)


def test_options_of_our_own_optimisers_are_refused_for_others() -> None:
    with pytest.raises(ValueError, match=r"optimizer_eps=0\.1: .*agent\.optimizer is AdamW"):
        A2CConfig(optimizer="AdamW", optimizer_eps=0.1)
    with pytest.raises(ValueError, match=r"rmsprop_alpha=0\.5: .*agent\.optimizer is RMSprop"):
        A2CConfig(optimizer="RMSprop", rmsprop_alpha=0.5)
    with pytest.raises(ValueError, match=r"did you mean RMSprop\?"):
        PPOConfig(optimizer="rmsprop")


def test_the_command_line_takes_them() -> None:
    words = "--agent.optimizer AdamW --agent.optimizer-kwargs.weight_decay 0.01"
    config = parse_config(TrainConfig, words.split())
    assert config.agent.optimizer == "AdamW"
    assert config.agent.optimizer_kwargs == {"weight_decay": 0.01}
