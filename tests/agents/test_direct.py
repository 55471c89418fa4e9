"""PPO's gradients without a graph of torch's: the same bits, and where there has to be one."""

import copy
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents import base, ppo
from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.agents.direct import direct_loss
from xlstm_rl.distributed import Ranks
from xlstm_rl.errors import NonFiniteLossError
from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.sequence_chain import SequenceChain
from xlstm_rl.policy.actions.categorical import Categorical
from xlstm_rl.policy.direct import direct_pass

pytestmark = pytest.mark.skipif(not LOADED, reason="without the C library there is always a graph")

STEPS = 16 * 4 * 3
Change = Callable[[RecurrentPPO], Any]


def changed(agent: RecurrentPPO, change: Change) -> RecurrentPPO:
    change(agent)
    return agent


def _half(*_: Any) -> Tensor:
    return torch.tensor(0.5)


def agent_of(env: Any = "CartPole-v1", **sections: Any) -> RecurrentPPO:
    agent = {"rollout_steps": 16, "epochs": 2, "minibatches": 2, **sections.pop("agent", {})}
    memory = {"width": 16, **sections.pop("memory", {})}
    sections = {"env": {"num_envs": 4}, "logger": "none", **sections}
    return RecurrentPPO(env, memory=memory, agent=agent, **sections)


WAYS = C, SHORT, GRAPH = "C", "a graph of the loss alone", "a graph of all"


def trained(best: str, agent: RecurrentAgent) -> tuple[set[str], list[Any]]:
    """How minibatches went, none better than `best`, and all that came of it.

    Which are the weights, their gradients and the metrics.
    """
    ways: list[str] = []
    rows: list[Any] = []

    def run_all(*args: Any) -> Any:
        found = None if best == GRAPH else direct_pass(*args)
        ways.append(GRAPH if found is None else SHORT)
        return found

    def run_loss(*args: Any) -> Any:
        found = direct_loss(*args) if best == C else None
        if found is not None:
            ways[-1] = C
        return found

    def keep(_: int, metrics: Any) -> None:
        rows.append({k: v for k, v in metrics.items() if not k.startswith("time/")})

    with (
        agent,
        mock.patch.object(base, "direct_pass", run_all),
        mock.patch.object(ppo, "direct_loss", run_loss),
    ):
        agent.learn(STEPS, on_update=keep)
    weights = [one.detach() for one in agent.parameters]
    return set(ways), [weights, [one.grad for one in agent.parameters], rows]


def assert_equal(mine: list[Any], theirs: list[Any]) -> None:
    for own, other in zip(mine[:2], theirs[:2], strict=True):
        for a, b in zip(own, other, strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)
    assert repr(mine[2]) == repr(theirs[2])


def assert_same_bits(make: Callable[[], RecurrentAgent], best: str) -> None:
    """Minibatches can go as `best` and all that are slower, and nothing tells them apart."""
    found = []
    for way in WAYS[WAYS.index(best) :]:
        ways, made = trained(way, make())
        assert ways <= {way} and (ways or way == GRAPH)
        found.append(made)
    ways, made = trained(C, make())
    assert ways <= {best} and (ways or best == GRAPH)
    for one in found:
        assert_equal(one, made)


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize(
    "memory, agent",
    [
        ({}, {}),
        ({"pattern": "ms"}, {"value_clip": 0.2, "segment_steps": 8}),
        ({"kind": "lstm"}, {"log_barrier_coef": 0.0, "normalize_advantage": False}),
        ({"kind": "gru"}, {"max_grad_norm": 0.01}),
    ],
)
def test_the_bits_are_those_of_a_graph(
    memory: dict[str, Any], agent: dict[str, Any], critic: str
) -> None:
    assert_same_bits(lambda: agent_of(memory=memory, agent=agent, policy={"critic": critic}), C)


SIDE_BY_SIDE: list[Any] = [
    spaces.MultiDiscrete([3, 3]),
    spaces.MultiDiscrete([2, 4, 1]),
    spaces.MultiDiscrete([[2, 3], [4, 2]]),
    spaces.MultiBinary(3),
]


@pytest.mark.parametrize("space", SIDE_BY_SIDE, ids=str)
def test_the_bits_of_choices_side_by_side_are_those_of_a_graph_too(
    space: Any, any_spaces: Any
) -> None:
    def env() -> Any:
        return any_spaces(*copy.deepcopy((spaces.Box(-1, 1, (3,)), space)))

    assert_same_bits(lambda: agent_of(env), C)


FREE: dict[str, Any] = {}
STATE = {"std": "state", "initial_log_std": -0.7}


@pytest.mark.parametrize("std", [FREE, STATE], ids=["free", "state"])
@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize(
    ("memory", "agent"),
    [
        ({}, {"entropy_coef": 0.01}),
        ({"pattern": "ms"}, {"segment_steps": 8, "value_clip": 0.2}),
    ],
)
def test_the_bits_of_numbers_are_those_of_a_graph_too(
    memory: dict[str, Any], agent: dict[str, Any], critic: str, std: dict[str, Any]
) -> None:
    policy = {"critic": critic, "action_distribution": std}
    sections: dict[str, Any] = {"memory": memory, "agent": agent, "policy": policy}
    assert_same_bits(lambda: agent_of("Pendulum-v1", **sections), C)


def _log_std_of(agent: RecurrentPPO) -> Any:
    return agent.policy.network.log_std


def _hook_of_log_std(agent: RecurrentPPO) -> None:
    _log_std_of(agent).register_hook(lambda grad: 0.5 * grad)


def _hook_behind_log_std(agent: RecurrentPPO) -> None:
    def halve(weight: Tensor) -> None:
        assert weight.grad is not None
        weight.grad *= 0.5

    _log_std_of(agent).register_post_accumulate_grad_hook(halve)


def _freeze_log_std(agent: RecurrentPPO) -> None:
    _log_std_of(agent).requires_grad_(False)


def _make_log_std_of_another(agent: RecurrentPPO) -> None:
    class Doubled(torch.nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    torch.nn.utils.parametrize.register_parametrization(
        agent.policy.network, "log_std", Doubled(), unsafe=True
    )
    agent.parameters = [*agent.policy.network.parameters()]
    agent.optimizer = agent.make_optimizer()


def _own_density(agent: RecurrentPPO) -> None:
    distribution: Any = agent.policy.network.distribution
    density = distribution.log_prob_and_entropy
    distribution.log_prob_and_entropy = lambda params, action: density(0.5 * params, action)


@pytest.mark.parametrize(
    "change",
    [
        *(_hook_of_log_std, _hook_behind_log_std, _freeze_log_std, _make_log_std_of_another),
        _own_density,
    ],
)
def test_what_could_tell_the_difference_of_numbers_has_a_graph_of_the_loss(change: Change) -> None:
    assert_same_bits(lambda: changed(agent_of("Pendulum-v1"), change), SHORT)


def test_a_weight_in_two_places_has_the_sum_of_both_gradients() -> None:
    def make() -> RecurrentPPO:
        agent = agent_of(policy={"critic": "separate", "previous_action": False})
        network: Any = agent.policy.network
        network.critic_trunk.encoder[0].weight = network.trunk.encoder[0].weight
        agent.parameters = [*network.parameters()]
        agent.optimizer = agent.make_optimizer()
        return agent

    assert_same_bits(make, C)


def _hook(agent: RecurrentPPO) -> None:
    agent.parameters[0].register_hook(lambda grad: 0.5 * grad)


def _hook_behind(agent: RecurrentPPO) -> None:
    def halve(weight: Tensor) -> None:
        assert weight.grad is not None
        weight.grad *= 0.5

    agent.parameters[-1].register_post_accumulate_grad_hook(halve)


def _module_hook(agent: RecurrentPPO) -> None:
    agent.policy.network.trunk.memory.register_forward_hook(lambda *_: None)


def _backward_hook(agent: RecurrentPPO) -> None:
    agent.policy.network.action_head.register_full_backward_hook(lambda *_: None)


def _freeze(agent: RecurrentPPO) -> None:
    agent.policy.network.trunk.encoder.requires_grad_(False)


def _own_terms(agent: RecurrentPPO) -> None:
    class Softer(Categorical):
        def loss_terms(self, params: Tensor, action: Tensor, wants_mean: bool) -> Any:
            return super().loss_terms(0.5 * params, action, wants_mean)

    agent.policy.network.distribution = Softer(2)


def _terms_of_one(agent: RecurrentPPO) -> None:
    distribution: Any = agent.policy.network.distribution
    terms = distribution.loss_terms
    distribution.loss_terms = lambda params, *rest: terms(0.5 * params, *rest)


def _own_outputs(agent: RecurrentPPO) -> None:
    network: Any = agent.policy.network
    for_loss = network.for_loss
    network.for_loss = lambda *seen: tuple(0.5 * one for one in for_loss(*seen))


def _own_step(agent: RecurrentPPO) -> None:
    descend = agent._descend
    agent._descend = lambda loss, log, valid: descend(2 * loss, log, valid)  # type: ignore


def _params_of_all(agent: RecurrentPPO) -> None:
    network: Any = agent.policy.network
    made = network._distribution_params

    def params(outputs: Tensor, observation: Any, features: Tensor) -> Tensor:
        found: Tensor = made(outputs + features.mean(-1, keepdim=True) ** 2, observation, features)
        return found * network.value_head.output.weight.sum()

    network._distribution_params = params


@pytest.mark.parametrize("change", [_own_terms, _terms_of_one, _params_of_all])
def test_a_loss_of_ones_own_has_a_graph_of_it_alone(change: Change) -> None:
    assert_same_bits(lambda: changed(agent_of(), change), SHORT)


CHANGES = [_hook, _hook_behind, _module_hook, _backward_hook, _freeze, _own_outputs, _own_step]


@pytest.mark.parametrize("change", CHANGES)
def test_what_could_tell_the_difference_has_a_graph_of_all(change: Change) -> None:
    assert_same_bits(lambda: changed(agent_of(), change), GRAPH)


def test_so_has_a_search_for_anomalies() -> None:
    with torch.autograd.set_detect_anomaly(True):
        ways, _ = trained(C, agent_of())
    assert ways == {GRAPH}


def test_several_processes_have_a_graph_of_the_loss() -> None:
    def make() -> RecurrentPPO:
        agent = agent_of(agent={"normalize_advantage": False})
        agent.ranks = copy.copy(agent.ranks)
        agent.ranks.size = 2  # which exchange nothing here
        return agent

    with mock.patch.object(Ranks, "average"), mock.patch.object(Ranks, "share", _half):
        assert_same_bits(make, SHORT)


PARTS = spaces.Dict({"turn": spaces.Discrete(3), "speed": spaces.Box(-1, 1, (2,))})


def _env_of(space: Any, any_spaces: Any) -> Callable[[], Any]:
    return lambda: any_spaces(*copy.deepcopy((spaces.Box(-1, 1, (3,)), space)))


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize(
    "env, options",
    [
        ("Pendulum-v1", {"std": "gsde"}),
        ("Pendulum-v1", {"bounds": "tanh"}),
        ("Pendulum-v1", {"std": "state", "bounds": "tanh"}),
        (PARTS, {}),
    ],
    ids=str,
)
def test_other_families_have_a_graph_of_the_loss(
    env: Any, options: dict[str, Any], critic: str, any_spaces: Any
) -> None:
    made = env if isinstance(env, str) else _env_of(env, any_spaces)
    policy = {"critic": critic, "action_distribution": options}
    assert_same_bits(lambda: agent_of(made, policy=policy, agent={"segment_steps": 8}), SHORT)


def test_what_is_not_all_of_c_runs_its_network_once() -> None:
    counted = []
    forward = SequenceChain.forward

    def count(self: Any, *args: Any) -> Any:
        counted.append(self)
        return forward(self, *args)

    policy = {"action_distribution": {"bounds": "tanh"}}
    with mock.patch.object(SequenceChain, "forward", count):
        ways, _ = trained(C, agent_of("Pendulum-v1", policy=policy))
    assert ways == {SHORT}
    assert len(counted) == 3 * 3 * 2 * 2  # updates, epochs, minibatches: the memory and two heads


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize(
    "agent", [{}, {"advantages": "vtrace", "epochs": 2}, {"optimizer": "rmsprop"}], ids=str
)
def test_a2c_has_a_graph_of_the_loss(env: str, agent: dict[str, Any]) -> None:
    def make() -> RecurrentA2C:
        options = {"rollout_steps": 16, "log_barrier_coef": 0.003, **agent}
        memory = {"width": 16}
        return RecurrentA2C(env, env={"num_envs": 4}, memory=memory, agent=options, logger="none")

    assert_same_bits(make, SHORT)


def test_gradients_are_there_behind_an_update_and_stay_as_they_are() -> None:
    kept: list[list[Tensor]] = []

    def keep(*_: Any) -> None:
        grads = [one.grad for one in agent.parameters]
        kept.append([one for one in grads if one is not None])
        copies.append([one.clone() for one in kept[-1]])

    copies: list[list[Tensor]] = []
    with agent_of() as agent:
        agent.learn(STEPS, on_update=keep)
    for one, two in zip(kept, copies, strict=True):
        assert len(one) == len(agent.parameters)
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(*kept[:2], strict=True))


@pytest.mark.parametrize("broken", ["advantage", "target", "log_prob", "weight", "gradient"])
def test_what_is_not_finite_is_refused_as_it_is_with_a_graph(broken: str) -> None:
    said = []
    for best in WAYS:
        agent = agent_of(agent={"minibatches": 1})
        with (
            agent,
            mock.patch.object(ppo, "direct_loss", direct_loss if best == C else _none),
            mock.patch.object(base, "direct_pass", _none if best == GRAPH else direct_pass),
        ):
            agent.learn(64)
            rollout = agent._make_collector().collect()
            sequences = agent._sequences(rollout)
            if broken == "weight":
                agent.parameters[0].data[0, 0] = float("nan")
            elif broken == "gradient":
                sequences.advantage[0, 3] = 1e30
                sequences.target[1, 2] = 1e25
            else:
                getattr(sequences, broken)[0, 3] = float("nan")
            before = [one.detach().clone() for one in agent.parameters]
            with (
                mock.patch.object(agent, "_sequences", return_value=sequences),
                pytest.raises(NonFiniteLossError) as error,
            ):
                agent.update(rollout, 0.0)
            said.append(str(error.value))
            for now, one in zip(agent.parameters, before, strict=True):
                assert torch.equal(now.nan_to_num(7.0), one.nan_to_num(7.0))
    assert said[0] == said[1] == said[2]


def _none(*_: Any) -> None:
    return None


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_a_gradient_that_c_refuses_is_that_of_the_modules(critic: str) -> None:
    with mock.patch.object(SequenceChain, "backward", _none):
        assert_same_bits(lambda: agent_of(policy={"critic": critic}), C)


def test_a_minibatch_of_ones_own_is_asked() -> None:
    class Own(RecurrentPPO):
        algo = "ppo"

        def _minibatch(self, *args: Any) -> dict[str, Tensor]:
            return {"approx_kl": torch.zeros(())}

    with Own("CartPole-v1", memory={"width": 16}, logger="none") as agent:
        before = [one.detach().clone() for one in agent.parameters]
        agent.learn(64)
        assert all(torch.equal(a, b) for a, b in zip(agent.parameters, before, strict=True))
