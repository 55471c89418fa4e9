"""Encoders, memories and heads as one node: the same numbers as their modules, or their modules."""

import copy
import gc
import pickle
from itertools import product
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.device import torch_threads
from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.sequence_chain import SequenceChain
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.native_sequences import NativeSequences

from .whole_sequences import (  # noqa: F401
    MEMORIES,
    Batch,
    assert_same,
    buffers_of_nan,
    by_modules,
    gradients,
    make_of_another,
    takes_node,
)

pytestmark = pytest.mark.skipif(not LOADED, reason="without the C library there is no such node")


POLICIES: dict[str, dict[str, Any]] = {
    "shared": {},
    "separate": {"critic": "separate"},
    "bare heads": {"head_layers": 0, "encoder_layers": 0},
    "relu": {"head_widths": (24, 16), "activation": "relu", "encoder_layers": 2},
}


def network_of(memory: Any = None, policy: Any = None, env: str = "CartPole-v1") -> ActorCritic:
    agent = RecurrentPPO(
        env, memory=memory, policy=policy, env={"num_envs": 4}, logger={"kind": "none"}
    )
    with agent:
        return agent.policy.network


def batch_for(network: ActorCritic, B: int = 3, T: int = 37, resets: bool = True) -> Batch:
    encoder: Any = network.trunk.encoder
    inputs = next(one for one in encoder.modules() if isinstance(one, nn.Linear)).in_features
    generator = torch.Generator().manual_seed(B * T)
    x = torch.randn(B, T, inputs, generator=generator)
    state = tuple(
        0.1 * torch.randn(s.shape, generator=generator) for s in network.initial_tensors(B)
    )
    return x, state, (torch.rand(B, T, generator=generator) < 0.1) if resets else None


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
def test_it_is_as_near_to_float64_as_the_modules(memory: Any, policy: Any) -> None:
    """In the median of batches: in some a denominator is about to change, and either may be off."""
    network = network_of(memory, policy)
    exact = copy.deepcopy(network).double()
    mine, theirs, largest = [], [], 0.0
    for T, resets in product((37, 23, 26, 28, 34), (True, False)):
        batch = batch_for(network, T=T, resets=resets)
        assert takes_node(network, batch)
        wide = batch[0].double(), tuple(one.double() for one in batch[1]), batch[2]
        outputs = exact(*wide)[:2]
        wanted = gradients(exact, outputs)
        largest = max(largest, *(float(one.norm()) for one in wanted if one is not None))
        for run, errors in ((network.for_loss, mine), (network, theirs)):
            made = run(*batch)[:2]
            found = [*made, *gradients(network, made)]
            errors.append(_distances(found, [*outputs, *wanted]))
    # another order of the same sums: as large as theirs, not the same errors
    own, torchs = (torch.tensor(errors).median(0).values for errors in (mine, theirs))
    least = torch.tensor([1e-5] * 2 + [1e-6 * largest] * (len(mine[0]) - 2))
    assert (own <= 4 * torchs + least).all()


def _distances(found: list[Any], wanted: list[Any]) -> list[float]:
    return [float((a.detach() - b.detach()).norm()) for a, b in zip(found, wanted, strict=True)]


@pytest.mark.parametrize("std", ["free", "state", "gsde"])
def test_of_continuous_actions(std: str) -> None:
    policy = {"action_distribution": {"kind": "gaussian", "std": std}}
    network = network_of({"width": 32}, policy, "Pendulum-v1")
    batch = batch_for(network)
    assert takes_node(network, batch)
    assert_same(gradients(network, network.for_loss(*batch)), by_modules(network, batch))


@pytest.mark.parametrize("used", [0, 1])
def test_of_outputs_that_no_loss_has_touched(used: int) -> None:
    for policy in ({}, {"critic": "separate"}):
        network = network_of({"width": 32}, policy)
        batch, weights = batch_for(network), [*network.parameters()]
        found = []
        for made in (network.for_loss(*batch), network(*batch)):
            loss = made[used].square().sum()
            found.append([*torch.autograd.grad(loss, weights, allow_unused=True)])
        assert_same(*found)


@pytest.mark.parametrize("B, T", [(1, 1), (1, 200), (17, 3), (5, 64)])
def test_every_size_and_one_after_the_other(B: int, T: int) -> None:
    network = network_of({"pattern": "ms", "width": 32}, {"critic": "separate"})
    for size in ((2, 9), (B, T), (2, 9)):
        batch = batch_for(network, *size)
        assert_same(gradients(network, network.for_loss(*batch)), by_modules(network, batch))


@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
def test_threads_change_nothing(memory: Any) -> None:
    network = network_of(memory, {"critic": "separate"})
    batch, found = batch_for(network, 5), []
    for threads in (1, 3, 2):
        with torch_threads(threads):
            assert takes_node(network, batch)
            found.append(gradients(network, network.for_loss(*batch)))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert (a is b is None) or torch.equal(a, b)  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
def test_agents_learn_with_it(algorithm: Any) -> None:
    options = {"memory": {"width": 16}, "env": {"num_envs": 4}, "logger": {"kind": "none"}}
    weights, real = [], NativeSequences.run
    for is_on in (True, False):
        with algorithm("CartPole-v1", agent={"rollout_steps": 16}, **options) as agent:
            found = []

            def run(self: Any, *args: Any, is_on: bool = is_on, **options: Any) -> Any:
                run = real(self, *args, **options) if is_on else None
                found.append(run is not None)  # noqa: B023
                return run

            with mock.patch.object(NativeSequences, "run", run):
                agent.learn(128)
            assert found and all(one is is_on for one in found)
            weights.append([w.detach().clone() for w in agent.policy.network.parameters()])
    for mine, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def _hook(network: ActorCritic) -> Any:
    return network.trunk.memory.register_forward_hook(lambda *args: None)


def _backward_hook(network: ActorCritic) -> Any:
    return network.action_head.register_full_backward_hook(lambda *args: None)


def _freeze(network: ActorCritic) -> None:
    network.trunk.encoder.requires_grad_(False)


def _prune(network: ActorCritic) -> None:
    prune.l1_unstructured(network.value_head.output, "weight", amount=0.5)


def _own_forward(network: ActorCritic) -> None:
    head = network.value_head
    head.forward = lambda x: 2 * type(head).forward(head, x)  # type: ignore[method-assign]


def _own_module(network: ActorCritic) -> None:
    network.action_head.hidden = nn.Sequential(network.action_head.hidden, nn.Dropout(0.0))


def _own_output(network: ActorCritic) -> None:
    network.action_head.output = nn.Sequential(network.action_head.output)


def _widen(network: ActorCritic) -> None:
    network.double()


CHANGES = [
    *(_hook, _backward_hook, _freeze, make_of_another, _prune),
    *(_own_forward, _own_module, _own_output, _widen),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_could_tell_the_difference_goes_by_modules(change: Any) -> None:
    network = network_of({"width": 32})
    batch = batch_for(network)
    assert takes_node(network, batch)
    change(network)
    if change is _widen:
        batch = batch[0].double(), tuple(one.double() for one in batch[1]), batch[2]
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    assert not takes_node(network, batch)
    found = []
    for made in (network.for_loss(*batch), network(*batch)):
        loss = made[0].sin().sum() + made[1].square().sum()
        found.append([*torch.autograd.grad(loss, weights, allow_unused=True)])
    assert_same(*found)


def test_a_policy_whose_last_layer_was_exchanged_acts_and_learns() -> None:
    for name in ("action_head", "value_head"):
        options: Any = {"memory": {"width": 16}, "env": {"num_envs": 4}, "logger": "none"}
        with RecurrentPPO("CartPole-v1", agent={"rollout_steps": 8}, **options) as agent:
            head = getattr(agent.policy.network, name)
            head.output = nn.Sequential(head.output)
            agent.learn(32)
            action = agent.policy.actor()(np.zeros(4, np.float32), reset=True)
            assert agent.env.single_action_space.contains(action)


def test_a_hook_that_is_gone_again() -> None:
    network = network_of({"width": 32})
    batch = batch_for(network)
    handle = _hook(network)
    assert not takes_node(network, batch)
    handle.remove()
    assert takes_node(network, batch)


def test_modes_and_inputs_with_gradients_go_by_modules() -> None:
    network = network_of({"width": 32})
    x, state, reset = batch_for(network)
    with torch.no_grad():
        assert not takes_node(network, (x, state, reset))
    with FlopCounterMode(display=False):
        assert not takes_node(network, (x, state, reset))
    with torch.autocast("cpu", torch.bfloat16):
        assert not takes_node(network, (x, state, reset))
    assert not takes_node(network, (x.requires_grad_(), state, reset))
    wanted = tuple(one.requires_grad_() for one in state)
    assert not takes_node(network, (x.detach(), wanted, reset))


def test_weights_that_were_loaded_exchanged_or_moved() -> None:
    network, other = network_of({"width": 32}), network_of({"width": 32}, {"critic": "shared"})
    batch = batch_for(network)
    assert takes_node(network, batch)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.1)
    network.load_state_dict(other.state_dict())
    assert_same(gradients(network, network.for_loss(*batch)), by_modules(network, batch))
    network.value_head.output.weight = nn.Parameter(
        torch.randn_like(other.value_head.output.weight)
    )
    assert takes_node(network, batch)
    assert_same(gradients(network, network.for_loss(*batch)), by_modules(network, batch))
    for weight in network.parameters():
        weight.data = 0.9 * weight.data
    assert takes_node(network, batch)
    assert_same(gradients(network, network.for_loss(*batch)), by_modules(network, batch))


def test_a_weight_in_two_places_has_the_sum_of_both_gradients() -> None:
    network = network_of({"width": 32}, {"critic": "separate"})
    critic: Any = network.critic_trunk
    critic.encoder[0].weight = network.trunk.encoder[0].weight
    batch = batch_for(network)
    assert takes_node(network, batch)
    assert_same(gradients(network, network.for_loss(*batch)), by_modules(network, batch))


def test_two_graphs_at_once() -> None:
    network = network_of({"width": 32})
    batches = [batch_for(network, 3), batch_for(network, 3, 37, False)]
    made = [network.for_loss(*batch) for batch in batches]
    for one, batch in zip(made, batches, strict=True):
        assert_same(gradients(network, one), by_modules(network, batch))


def test_gradients_add_up_over_minibatches() -> None:
    network = network_of({"width": 32})
    batches = [batch_for(network, 3), batch_for(network, 4)]
    for batch in batches:
        params, value = network.for_loss(*batch)
        (params.sin().sum() + value.square().sum()).backward()  # type: ignore[no-untyped-call]
    mine = [weight.grad for weight in network.parameters()]
    theirs = zip(*(by_modules(network, batch) for batch in batches), strict=True)
    assert_same(mine, [a + b for a, b in theirs if a is not None and b is not None])


def test_a_second_backward_says_what_to_do() -> None:
    network = network_of({"width": 32})
    params, _ = network.for_loss(*batch_for(network))
    loss = params.sum()
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match=r"differentiated before.*call the network itself"):
        loss.backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("ends", ["dropped", "differentiated"])
def test_the_buffers_are_free_when_the_graph_is_done(ends: str) -> None:
    network = network_of({"width": 32})
    batch = batch_for(network)
    gc.disable()  # by counting references alone
    try:
        for _ in range(2):
            made = network.for_loss(*batch)
            assert not takes_node(network, batch)
            if ends == "differentiated":
                made[0].sum().backward()  # type: ignore[no-untyped-call]
                assert takes_node(network, batch)
            del made
            assert takes_node(network, batch)
    finally:
        gc.enable()


@pytest.mark.parametrize("pattern", ["m", "s"])
def test_what_is_not_finite_is_as_the_modules_have_it(pattern: str) -> None:
    network = network_of({"width": 32, "pattern": pattern})
    x, state, reset = batch_for(network)
    x[1, 5] = float("inf")
    params, value = network.for_loss(x, state, reset)
    theirs = network(x, state, reset)
    torch.testing.assert_close(params, theirs[0], equal_nan=True)
    torch.testing.assert_close(value, theirs[1], equal_nan=True)


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_a_gradient_that_is_not_finite_is_as_the_modules_have_it(critic: str) -> None:
    network = network_of({"width": 32}, {"critic": critic})
    batch = batch_for(network)
    assert takes_node(network, batch)
    with mock.patch.object(SequenceChain, "backward", return_value=None):
        mine = gradients(network, network.for_loss(*batch))
    assert_same(mine, by_modules(network, batch))


def test_a_copy_begins_anew() -> None:
    network = network_of({"width": 32})
    batch = batch_for(network)
    assert takes_node(network, batch)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert other._native_sequences._built is None
        assert takes_node(other, batch)
        assert_same(gradients(other, other.for_loss(*batch)), by_modules(network, batch))
