import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential
from tensordict.nn import TensorDictModule as Module
from torch.distributions import Categorical
from torchrl.objectives import A2CLoss

from xlstm_rl import RecurrentA2C, RecurrentPPO, load_policy
from xlstm_rl.agents import TrainConfig, make_agent
from xlstm_rl.agents.a2c import a2c_loss, on_policy_targets, vtrace_targets
from xlstm_rl.agents.config import A2CConfig, PPOConfig
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.config import ConfigError, config_from_dict, config_to_dict, load_yaml
from xlstm_rl.errors import NonFiniteLossError

SMALL: dict[str, Any] = {
    "memory": {"pattern": "m", "width": 16, "num_heads": 2},
    "policy": {"head_width": 16},
    "logger": {"kind": "none"},
}


def _agent(seed: int = 0, **sections: Any) -> RecurrentA2C:
    merged: dict[str, Any] = {**SMALL, "env": {"num_envs": 4}, **sections}
    merged["agent"] = {"rollout_steps": 16, **sections.get("agent", {})}
    return RecurrentA2C("xlstm_rl/CartPoleNoVel-v1", seed=seed, **merged)


def _rollout(agent: RecurrentA2C) -> Rollout:
    rollout = agent._make_collector().collect()
    agent._prepare(rollout)
    return rollout


def _with_opinions(agent: RecurrentA2C) -> RecurrentA2C:
    with torch.no_grad():  # near-uniform policies hide misplaced resets
        agent.policy.network.action_head.output.weight.mul_(100.0)
    return agent


@pytest.mark.parametrize("normalize", [False, True])
def test_the_loss_and_its_gradients_are_torchrls(normalize: bool) -> None:
    shape = (6, 5)
    logits, value = torch.randn(*shape, 2, requires_grad=True), torch.randn(shape).requires_grad_()
    action, advantage, target = torch.randint(2, shape), torch.randn(shape), torch.randn(shape)
    config = A2CConfig(normalize_advantage=normalize, entropy_coef=0.01, value_coef=0.7)
    log_p = logits.log_softmax(-1)
    log_prob = log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    loss, _ = a2c_loss(log_prob, entropy, value, advantage, target, None, config)
    ours = torch.autograd.grad(loss, (logits, value), retain_graph=True)

    actor = ProbabilisticTensorDictSequential(
        Module(lambda x: x, in_keys=["raw"], out_keys=["logits"]),
        ProbabilisticTensorDictModule(["logits"], ["action"], distribution_class=Categorical),
    )
    critic = Module(lambda x: x, in_keys=["raw_value"], out_keys=["state_value"])
    oracle = A2CLoss(actor, critic, entropy_coeff=0.01, critic_coeff=0.7, loss_critic_type="l2")
    scaled = (advantage - advantage.mean()) / advantage.std() if normalize else advantage
    parts = oracle(
        TensorDict(
            {
                "raw": logits,
                "raw_value": value.unsqueeze(-1),
                "action": action,
                "advantage": scaled.unsqueeze(-1),
                "value_target": target.unsqueeze(-1),
            },
            batch_size=shape,
        )
    )
    # TorchRL does not halve the squared error.
    theirs = parts["loss_objective"] + parts["loss_entropy"] + 0.5 * parts["loss_critic"]
    torch.testing.assert_close(loss, theirs, rtol=1e-4, atol=1e-5)
    for a, b in zip(ours, torch.autograd.grad(theirs, (logits, value)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_dead_steps_carry_no_loss() -> None:
    valid = torch.rand(6, 5) < 0.7
    tensors = [torch.randn(6, 5) for _ in range(5)]
    before = a2c_loss(*tensors, valid, A2CConfig(entropy_coef=0.1))[0]
    for x in tensors:
        x[~valid] = 7.0
    assert torch.equal(a2c_loss(*tensors, valid, A2CConfig(entropy_coef=0.1))[0], before)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step", "disabled"])
def test_recomputed_log_probabilities_and_values_are_those_acted_with(autoreset: str) -> None:
    agent = _with_opinions(
        _agent(env={"num_envs": 4, "autoreset": autoreset}, agent={"rollout_steps": 64})
    )
    collector = agent._make_collector()
    for _ in range(2):  # the second one starts from the memory that the first left
        rollout = collector.collect()
        valid = rollout.data["valid"]
        assert rollout.data["reset"][:, 1:].any()
        with torch.no_grad():
            (log_prob, *_), value, _ = agent._evaluate(rollout)
        for ours, stored in ((log_prob, "log_prob"), (value, "value")):
            torch.testing.assert_close(
                ours[valid], rollout.data[stored][valid], rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("advantages", ["gae", "n_step", "vtrace"])
def test_an_update_is_one_step_down_the_gradient_of_steps_taken_one_by_one(
    advantages: str,
) -> None:
    agent = _agent(
        agent={
            "optimizer": "rmsprop",
            "learning_rate": 0.01,
            "max_grad_norm": 1e9,
            "normalize_advantage": False,
            "entropy_coef": 0.02,
            "advantages": advantages,
            **({} if advantages == "n_step" else {"gae_lambda": 0.9}),
        }
    )
    rollout = _rollout(_with_opinions(agent))
    data, network = rollout.data, copy.deepcopy(agent.policy.network)
    agent.update(rollout, progress=0.5)

    total = torch.zeros(())
    tensors = rollout.segment_states[0]
    lam = 1.0 if advantages == "n_step" else 0.9
    advantage, running = torch.zeros(4, 16), torch.zeros(4)
    for t in reversed(range(16)):
        follows = data["next_value"][:, t] * ~data["terminated"][:, t]
        delta = data["reward"][:, t] + 0.99 * follows - data["value"][:, t]
        ended = data["terminated"][:, t] | data["truncated"][:, t]
        running = delta + 0.99 * lam * running * ~ended
        advantage[:, t] = running
    for t in range(16):
        params, value, tensors = network.step(
            data["observation"][:, t], tensors, data["reset"][:, t]
        )
        policy = Categorical(logits=params)
        target = advantage[:, t] + data["value"][:, t]
        total = total + (
            -policy.log_prob(data["action"][:, t]) * advantage[:, t]
            + 0.5 * 0.5 * (value - target) ** 2
            - 0.02 * policy.entropy()
        ).sum() / (4 * 16)
    total.backward()
    for ours, start in zip(agent.parameters, network.parameters(), strict=True):
        assert start.grad is not None
        # The average of squares starts at 0; half the learning rate is left at progress .5.
        root = (0.01 * start.grad.square() + 1e-5).sqrt()
        expected = start - 0.005 * start.grad / root
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_vtrace_on_the_rollout_of_the_same_policy_has_the_targets_of_gae(autoreset: str) -> None:
    agent = _agent(
        env={"num_envs": 4, "autoreset": autoreset, "max_episode_steps": 9},  # truncations too
        agent={"rollout_steps": 40},
    )
    data, config = _rollout(agent).data, agent.algorithm
    assert (data["truncated"].any() and data["terminated"].any()) or data["truncated"].any()
    ours = vtrace_targets(data, torch.zeros_like(data["value"]), data["value"], config)
    for a, b in zip(ours, on_policy_targets(data, config), strict=True):
        torch.testing.assert_close(a[data["valid"]], b[data["valid"]], rtol=1e-5, atol=1e-5)


def test_a_stale_rollout_weighs_less_where_the_policy_left_its_actions() -> None:
    agent = _agent(agent={"advantages": "vtrace", "gae_lambda": 1.0, "epochs": 1})
    rollout = _rollout(agent)
    log_ratio = torch.full_like(rollout.data["value"], -2.0)
    value = rollout.data["value"]
    fresh, _ = vtrace_targets(rollout.data, torch.zeros_like(value), value, agent.algorithm)
    stale, _ = vtrace_targets(rollout.data, log_ratio, value, agent.algorithm)
    assert stale.abs().mean() < 0.5 * fresh.abs().mean()


def test_several_epochs_on_one_rollout_need_vtrace() -> None:
    with pytest.raises(ConfigError, match=r"agent.epochs=4 with agent.advantages=gae.*vtrace"):
        _agent(agent={"epochs": 4})
    agent = _agent(agent={"epochs": 4, "advantages": "vtrace"})
    seen: list[dict[str, float]] = []
    agent.learn(64 * 2, on_update=lambda step, metrics: seen.append(metrics))
    assert all(metrics["loss/approx_kl"] > 0 for metrics in seen)
    assert next(iter(agent.optimizer.state.values()))["step"].item() == 4 * 2


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_the_same_seed_gives_the_same_weights_and_another_does_not(optimizer: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        agent = _agent(seed, agent={"optimizer": optimizer}).learn(256)
        return torch.cat([p.detach().flatten() for p in agent.parameters])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_every_parameter_is_trained(critic: str) -> None:
    agent = _agent(
        policy={"head_width": 16, "critic": critic},
        memory={"pattern": "ms", "width": 16, "num_heads": 2},
    )
    before = [p.detach().clone() for p in agent.parameters]
    agent.learn(4 * 16 * 4)
    names = [name for name, _ in agent.policy.network.named_parameters()]
    pairs = zip(names, before, agent.parameters, strict=True)
    assert [name for name, a, b in pairs if torch.equal(a, b)] == []


def test_a_non_finite_loss_stops_the_run_and_keeps_the_weights() -> None:
    agent = _agent()
    kept: list[torch.Tensor] = []

    def poison(step: int, metrics: dict[str, float]) -> None:
        kept[:] = [p.detach().clone() for p in agent.parameters]
        if step == 128:
            agent.policy.network.value_head.output.weight.register_hook(
                lambda gradient: gradient * float("inf")
            )

    with pytest.raises(NonFiniteLossError, match=r"at step 128: grad_norm=(inf|nan)"):
        agent.learn(1024, on_update=poison)
    assert all(torch.equal(a, b) for a, b in zip(agent.parameters, kept, strict=True))


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_run_is_saved_as_ppos_are_and_loads(tmp_path: Path, optimizer: str) -> None:
    agent = _agent(agent={"optimizer": optimizer}).learn(64 * 3)
    run = agent.save(tmp_path / "run")
    for a, b in zip(load_policy(run).parameters(), agent.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    state = torch.load(run / "checkpoints" / "192" / "trainer.pt", weights_only=True)
    assert state["steps_done"] == 192
    saved, own = state["optimizer"], agent.optimizer.state_dict()
    assert saved["param_groups"] == own["param_groups"]
    for index, values in own["state"].items():
        for name, value in values.items():
            assert torch.equal(saved["state"][index][name], value)
    # The saved configuration makes the same agent again.
    config = config_from_dict(TrainConfig, load_yaml(run / "config.yaml"))
    trained = {"total_steps": config.total_steps, "horizon": config.horizon}  # what was asked for
    assert config == replace(agent.config, **trained)
    again = make_agent(config)
    assert isinstance(again, RecurrentA2C)
    again.optimizer.load_state_dict(saved)


def test_an_agent_refuses_the_options_of_another() -> None:
    with pytest.raises(ConfigError, match=r"agent.clip: an option of agent.algo=ppo, but .* a2c"):
        _agent(agent={"clip": 0.1})
    with pytest.raises(ConfigError, match=r"agent.algo=a2c: RecurrentPPO runs ppo"):
        RecurrentPPO("CartPole-v1", agent=A2CConfig())
    with pytest.raises(ConfigError, match=r"agent.algo=ppo: RecurrentA2C runs a2c"):
        RecurrentA2C("CartPole-v1", agent={"algo": "ppo"})


def test_configurations_saved_before_there_was_a_choice_load() -> None:
    config = TrainConfig(agent=PPOConfig(rollout_steps=32, clip=0.1))
    saved = config_to_dict(config)
    assert config_from_dict(TrainConfig, saved) == config
    del saved["agent"]["algo"]
    assert config_from_dict(TrainConfig, saved) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rho_bar": 0.0}, "agent.rho_bar=0.0: expected a number > 0"),
        ({"c_bar": -1.0}, "agent.c_bar=-1.0: expected a number > 0"),
        ({"rmsprop_alpha": 1.5}, "agent.rmsprop_alpha=1.5: expected a number from 0 to 1"),
        ({"optimizer_eps": 0.0}, "agent.optimizer_eps=0.0: expected a finite number > 0"),
        ({"rollout_steps": 0}, "agent.rollout_steps=0: expected an integer >= 1"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        A2CConfig(**values)


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_other_spaces_are_learned_with(env: str) -> None:
    agent = RecurrentA2C(env, env={"num_envs": 2}, agent={"rollout_steps": 8}, **SMALL)
    assert agent.learn(64).steps_done == 64
