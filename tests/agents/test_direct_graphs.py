"""Where torch has a graph: of the loss alone, or of all; the bits are the same."""

import copy
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.distributed import Ranks
from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.sequence_chain import SequenceChain
from xlstm_rl.policy.actions.categorical import Categorical

from .ways import GRAPH, MIXED, SHORT, C, Change, agent_of, assert_same_bits, changed, trained

pytestmark = pytest.mark.skipif(not LOADED, reason="without the C library there is always a graph")


def _half(*_: Any) -> Tensor:
    return torch.tensor(0.5)


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
    ("change", "best"),
    [
        (_hook_of_log_std, SHORT),
        (_hook_behind_log_std, SHORT),
        (_freeze_log_std, SHORT),
        (_make_log_std_of_another, MIXED),
        (_own_density, MIXED),
    ],
)
def test_what_could_tell_the_difference_of_numbers_has_a_graph_of_the_loss(
    change: Change, best: str
) -> None:
    assert_same_bits(lambda: changed(agent_of("Pendulum-v1"), change), best)


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


@pytest.mark.parametrize(
    ("change", "best"), [(_own_terms, MIXED), (_terms_of_one, MIXED), (_params_of_all, SHORT)]
)
def test_a_loss_of_ones_own_has_a_graph_of_it_alone(change: Change, best: str) -> None:
    assert_same_bits(lambda: changed(agent_of(), change), best)


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
@pytest.mark.each_value
def test_other_families_have_a_graph_of_the_loss(
    env: Any, options: dict[str, Any], critic: str, any_spaces: Any
) -> None:
    made = env if isinstance(env, str) else _env_of(env, any_spaces)
    policy = {"critic": critic, "action_distribution": options}
    assert_same_bits(lambda: agent_of(made, policy=policy, agent={"segment_steps": 8}), MIXED)


def test_masks_of_other_families_have_a_graph_of_the_loss(any_spaces: Any) -> None:
    def env() -> Any:
        return any_spaces(*copy.deepcopy((spaces.Box(-1, 1, (3,)), PARTS)), mask_in="info")

    assert_same_bits(lambda: agent_of(env, policy={"action_mask": "info"}), MIXED)


def test_what_is_not_all_of_c_runs_its_network_once() -> None:
    counted = []
    forward = SequenceChain.forward

    def count(self: Any, *args: Any) -> Any:
        counted.append(self)
        return forward(self, *args)

    policy = {"action_distribution": {"bounds": "tanh"}}
    with mock.patch.object(SequenceChain, "forward", count):
        ways, _ = trained(SHORT, agent_of("Pendulum-v1", policy=policy))
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
