import dataclasses
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential
from tensordict.nn import TensorDictModule as Module
from torch.distributions import Categorical
from torchrl.objectives import ClipPPOLoss

from xlstm_rl import RecurrentPPO
from xlstm_rl.agents.config import PPOConfig
from xlstm_rl.agents.ppo import Sequences, ppo_loss
from xlstm_rl.errors import NonFiniteLossError

SMALL: dict[str, Any] = {
    "memory": {"pattern": "m", "width": 16, "num_heads": 2},
    "policy": {"head_width": 16},
    "logger": {"kind": "none"},
}


def _agent(seed: int = 0, **sections: Any) -> RecurrentPPO:
    merged: dict[str, Any] = {**SMALL, "env": {"num_envs": 4}, **sections}
    merged["agent"] = {
        "rollout_steps": 16,
        "epochs": 2,
        "minibatches": 2,
        **sections.get("agent", {}),
    }
    return RecurrentPPO("xlstm_rl/CartPoleNoVel-v1", seed=seed, **merged)


def _batch(valid: torch.Tensor | None = None) -> Sequences:
    shape = (6, 5)
    return Sequences(
        observation=torch.randn(*shape, 3),
        action=torch.randint(2, shape),
        log_prob=-torch.rand(shape),
        value=torch.randn(shape),
        advantage=torch.randn(shape),
        target=torch.randn(shape),
        reset=torch.zeros(shape, dtype=torch.bool),
        valid=valid,
        state=(),
    )


@pytest.mark.parametrize("normalize", [False, True])
def test_the_loss_and_its_gradients_are_torchrls(normalize: bool) -> None:
    batch, logits = _batch(), torch.randn(6, 5, 2, requires_grad=True)
    value = torch.randn(6, 5, requires_grad=True)
    config = PPOConfig(normalize_advantage=normalize, entropy_coef=0.01, value_coef=0.7)
    log_p = logits.log_softmax(-1)
    log_prob = log_p.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    loss, _ = ppo_loss(batch, log_prob, -(log_p.exp() * log_p).sum(-1), value, 0.2, config)
    ours = torch.autograd.grad(loss, (logits, value), retain_graph=True)

    actor = ProbabilisticTensorDictSequential(
        Module(lambda x: x, in_keys=["raw"], out_keys=["logits"]),
        ProbabilisticTensorDictModule(["logits"], ["action"], distribution_class=Categorical),
    )
    critic = Module(lambda x: x, in_keys=["raw_value"], out_keys=["state_value"])
    oracle = ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=0.2,
        entropy_coeff=0.01,
        critic_coeff=0.7,
        loss_critic_type="l2",
        normalize_advantage=normalize,
    )
    parts = oracle(
        TensorDict(
            {
                "raw": logits,
                "raw_value": value.unsqueeze(-1),
                "action": batch.action,
                "action_log_prob": batch.log_prob,
                "advantage": batch.advantage.unsqueeze(-1),
                "value_target": batch.target.unsqueeze(-1),
            },
            batch_size=(6, 5),
        )
    )
    # TorchRL does not halve the squared error.
    theirs = parts["loss_objective"] + parts["loss_entropy"] + 0.5 * parts["loss_critic"]
    torch.testing.assert_close(loss, theirs, rtol=1e-4, atol=1e-5)
    for a, b in zip(ours, torch.autograd.grad(theirs, (logits, value)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_dead_steps_carry_no_loss() -> None:
    valid = torch.rand(6, 5) < 0.7
    batch, config = _batch(valid), PPOConfig(entropy_coef=0.01)
    log_prob, entropy, value = -torch.rand(6, 5), torch.rand(6, 5), torch.randn(6, 5)

    def loss() -> torch.Tensor:
        return ppo_loss(batch, log_prob, entropy, value, 0.2, config)[0]

    before = loss()
    for x in (batch.advantage, batch.target, batch.log_prob, log_prob, entropy, value):
        x[~valid] = 7.0
    assert torch.equal(loss(), before)


@pytest.mark.parametrize("count", [0, 1])
def test_a_minibatch_with_hardly_a_live_step_stays_finite(count: int) -> None:
    valid = torch.zeros(6, 5, dtype=torch.bool)
    valid[2, 3] = count == 1
    batch, log_prob = _batch(valid), torch.full((6, 5), -0.7, requires_grad=True)
    config = PPOConfig(entropy_coef=0.01)
    loss, log = ppo_loss(batch, log_prob, -log_prob, torch.randn(6, 5), 0.2, config)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(x) for x in log.values())
    assert log_prob.grad is not None and not log_prob.grad[~valid].any()


def test_value_clipping_takes_the_larger_error() -> None:
    batch = _batch()
    batch.value, batch.target = torch.zeros(6, 5), torch.ones(6, 5)
    config = PPOConfig(value_clip=0.1, normalize_advantage=False, entropy_coef=0.01)
    zero = torch.zeros(6, 5)
    # The value moved to .5: unclipped error .25, clipped to .1: error .81.
    _, log = ppo_loss(batch, batch.log_prob, zero, zero + 0.5, 0.2, config)
    assert log["value"].item() == pytest.approx(0.5 * 0.81, rel=1e-5)
    _, log = ppo_loss(
        batch, batch.log_prob, zero, zero + 0.5, 0.2, dataclasses.replace(config, value_clip=None)
    )
    assert log["value"].item() == pytest.approx(0.5 * 0.25, rel=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    def weights(seed: int) -> torch.Tensor:
        agent = _agent(seed).learn(256)
        return torch.cat([p.detach().flatten() for p in agent.parameters])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_every_parameter_is_trained() -> None:
    for critic in ("shared", "separate"):
        agent = _agent(
            policy={"head_width": 16, "critic": critic},
            memory={"pattern": "ms", "width": 16, "num_heads": 2},
        )
        before = [p.detach().clone() for p in agent.parameters]
        agent.learn(4 * 16 * 4)
        names = [name for name, _ in agent.policy.network.named_parameters()]
        still = [
            name
            for name, a, b in zip(names, before, agent.parameters, strict=True)
            if torch.equal(a, b)
        ]
        assert still == []


@pytest.mark.parametrize("autoreset", ["same_step", "next_step", "disabled"])
def test_the_ratio_is_one_before_the_first_gradient_step(autoreset: str) -> None:
    agent = _agent(
        env={"num_envs": 4, "autoreset": autoreset},
        agent={"rollout_steps": 64, "segment_steps": 16, "minibatches": 1, "epochs": 1},
    )
    with torch.no_grad():  # a policy with opinions: a misplaced reset would change its ratios
        agent.policy.network.action_head.output.weight.mul_(100.0)
    seen: list[dict[str, float]] = []
    agent.learn(4 * 64 * 3, on_update=lambda step, metrics: seen.append(metrics))
    assert len(seen) == 3
    # One epoch of one minibatch: the loss is evaluated by the weights that acted.
    # What is left of the divergence is the rounding of `ratio - 1 - log_ratio` in float32.
    assert all(abs(metrics["loss/approx_kl"]) < 1e-7 for metrics in seen)
    assert all(metrics["loss/clip_fraction"] == 0 for metrics in seen)


def test_the_target_kl_stops_the_epochs() -> None:
    seen: list[float] = []
    agent = _agent(agent={"epochs": 10, "target_kl": 1e-12, "learning_rate": 0.01})
    agent.learn(64, on_update=lambda step, metrics: seen.append(metrics["loss/minibatches"]))
    assert seen == [2.0]


def test_a_non_finite_loss_stops_the_run_and_keeps_weights_and_checkpoint(tmp_path: Any) -> None:
    run = tmp_path / "run"
    sections = {**SMALL, "logger": {"kind": "csv"}, "checkpoint": {"every_steps": 64}}
    agent = RecurrentPPO(
        "xlstm_rl/CartPoleNoVel-v1",
        run_dir=str(run),
        env={"num_envs": 4},
        agent={"rollout_steps": 16, "epochs": 1, "minibatches": 1},
        **sections,
    )
    kept: list[torch.Tensor] = []

    def poison(step: int, metrics: dict[str, float]) -> None:
        kept[:] = [p.detach().clone() for p in agent.parameters]
        if step == 128:
            # A gradient that overflows, as a diverging critic's would.
            agent.policy.network.value_head.output.weight.register_hook(
                lambda gradient: gradient * float("inf")
            )

    with pytest.raises(NonFiniteLossError, match=r"at step 128: grad_norm=(inf|nan)"):
        agent.learn(1024, on_update=poison)
    for now, before in zip(agent.parameters, kept, strict=True):
        assert torch.equal(now, before)
    assert (run / "latest").read_text().strip() == "128"
    assert (run / "checkpoints" / "128" / "policy.safetensors").is_file()


def test_the_budget_is_kept() -> None:
    agent = _agent()
    agent.learn(1000)
    assert agent.steps_done == 960  # 15 rollouts of 64
    agent.learn(1)
    assert agent.steps_done == 1024


@pytest.mark.slow
def test_memory_solves_a_chain_that_a_memoryless_policy_cannot() -> None:
    from xlstm_rl import evaluate

    means = {}
    for kind in ("xlstm", "mlp"):
        agent = RecurrentPPO(
            "xlstm_rl/MemoryChain-v0",
            env={"num_envs": 16, "kwargs": {"length": 5}},
            memory={"kind": kind, "width": 32},
            agent={"learning_rate": 1e-3, "entropy_coef": 0.01, "rollout_steps": 64},
            logger={"kind": "none"},
        )
        agent.learn(60_000)
        means[kind] = evaluate(agent.policy, episodes=100, seed=7).mean
    assert means["xlstm"] > 0.95
    assert abs(means["mlp"]) < 0.4  # three standard errors of a mean of 100 fair coins
