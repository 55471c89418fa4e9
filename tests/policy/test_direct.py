"""Gradients that go straight to the weights of a network."""

import gc
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.direct import (
    DirectPass,
    direct_pass,
    has_plain_params,
    loss_inputs,
    release_gradients,
)

from .test_native_sequences_encoders import SEEN as ENCODED
from .test_native_sequences_encoders import observed
from .whole_sequences import (  # noqa: F401
    MEMORIES,
    buffers_of_nan,
    make_of_another,
    takes_node,
)

pytestmark = pytest.mark.skipif(not LOADED, reason="without the C library there is no such pass")

SEEN = spaces.Box(-1, 1, (5,))


def network_of(memory: Any, actions: Any = None, **policy: Any) -> ActorCritic:
    torch.manual_seed(0)
    actions = spaces.Discrete(3) if actions is None else actions
    return ActorCritic(SEEN, actions, MemoryConfig(**memory), PolicyConfig(**policy))


def batch_for(network: ActorCritic, B: int = 3, T: int = 17) -> Any:
    draw = torch.Generator().manual_seed(B * T)
    x, starts = torch.randn(B, T, 5, generator=draw), torch.rand(B, T, generator=draw) < 0.1
    return x, network.initial_tensors(B), starts


def passed(network: ActorCritic, batch: Any) -> DirectPass:
    found = direct_pass(network, *batch)
    assert found is not None
    return found


def shortly(network: ActorCritic, batch: Any) -> None:
    """Differentiate a loss, in a graph that begins at what the network made."""
    params, value, backward = loss_inputs(network, *batch, passed(network, batch))
    assert backward is not None
    backward(params.cos().sum() + value.square().sum())


def wholly(network: ActorCritic, batch: Any) -> None:
    """Differentiate the same loss, in a graph that reaches to the weights."""
    params, value, backward = loss_inputs(network, *batch, None)
    assert backward is None
    torch.autograd.backward(params.cos().sum() + value.square().sum())


def gradients(network: ActorCritic, batches: list[Any], way: Any) -> list[Tensor | None]:
    """What a loss leaves at the weights, of some batches one after the other."""
    network.zero_grad()
    for batch in batches:
        way(network, batch)
    return [one.grad for one in network.parameters()]


NUMBERS = spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize("actions", [spaces.Discrete(3), NUMBERS], ids=["choices", "numbers"])
@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
def test_the_bits_are_those_of_the_graph_and_add_up(memory: Any, critic: Any, actions: Any) -> None:
    network = network_of(memory, actions, critic=critic)
    batches = [batch_for(network, B) for B in (3, 2)]
    ways = [gradients(network, batches, way) for way in (wholly, shortly)]
    for grads in zip(*ways, strict=True):
        assert all(one is not None and torch.equal(one, grads[0]) for one in grads)


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("seen", [name for name in ENCODED if name != "image"])
def test_of_choices_of_parts_and_of_what_stands_beside_them(seen: str, critic: Any) -> None:
    """With a mask, too, and whatever logits it leaves."""
    space, policy = ENCODED[seen]
    space.seed(0)
    torch.manual_seed(0)
    options = PolicyConfig(**policy, critic=critic)
    network = ActorCritic(space, spaces.Discrete(3), MemoryConfig(pattern="ms"), options)
    with torch.no_grad():
        network.action_head.output.bias[0] = -1e30  # below the least that an open choice counts
    batch: Any = (observed(space, policy, 3, 17), network.initial_tensors(3), None)
    ways = [gradients(network, [batch], way) for way in (wholly, shortly)]
    assert all(map(torch.equal, *ways))


def test_images_have_a_graph() -> None:
    space, policy = ENCODED["image"]
    options = PolicyConfig(**policy)
    network = ActorCritic(space, spaces.Discrete(3), MemoryConfig(width=16), options)
    x = observed(space, policy, 2, 5)
    assert direct_pass(network, x, network.initial_tensors(2), None) is None


def test_gradients_are_written_where_those_were_that_nobody_has_now() -> None:
    network = network_of({"width": 16})
    weights: list[Any] = [*network.parameters()]
    found: list[list[Any]] = []
    places = []
    for T in (17, 17, 5):
        batch = batch_for(network, 3, T)
        for is_direct in (True, False):
            network.zero_grad()
            if is_direct:
                made = passed(network, batch)
                made.backward(made.outputs, made.value)
                places.append([one.grad.data_ptr() for one in weights])
            else:
                pair = network.for_loss(*batch)
                torch.autograd.backward(pair, [one.detach() for one in pair])
            found.append([one.grad for one in weights])
        assert all(map(torch.equal, *found[-2:]))
    assert places[0] == places[1] != places[2]
    kept = [one.clone() for one in found[1]]
    passed(network, batch).backward(made.outputs, made.value)
    assert all(map(torch.equal, kept, found[1]))  # of torch's graph they are somebody's


def test_gradients_that_were_released_stay() -> None:
    network = network_of({"width": 16})
    weights: list[Any] = [*network.parameters()]
    batch = batch_for(network)
    kept = []
    for scale in (1, 2):
        network.zero_grad()
        made = passed(network, batch)
        made.backward(scale * made.outputs, made.value)
        kept.append([(one.grad, one.grad.clone()) for one in weights])
        release_gradients(network)
    assert all(torch.equal(*pair) for both in kept for pair in both)


def test_the_way_back_is_gone_once() -> None:
    network = network_of({"width": 16})
    made = passed(network, batch_for(network))
    made.backward(made.outputs, made.value)
    with pytest.raises(RuntimeError, match=r"differentiated before"):
        made.backward(made.outputs, made.value)


@pytest.mark.parametrize("ends", ["dropped", "gone back"])
def test_the_buffers_are_free_when_it_is_done(ends: str) -> None:
    network = network_of({"width": 16})
    batch = batch_for(network)
    gc.disable()  # by counting references alone
    try:
        made = passed(network, batch)
        assert direct_pass(network, *batch) is None
        assert not takes_node(network, batch)
        if ends == "gone back":
            made.backward(made.outputs, made.value)
            assert takes_node(network, batch)
        del made
        assert takes_node(network, batch)
    finally:
        gc.enable()


def _hook(network: ActorCritic) -> None:
    network.value_head.output.weight.register_hook(lambda grad: grad)


def _hook_behind(network: ActorCritic) -> None:
    network.value_head.output.weight.register_post_accumulate_grad_hook(lambda weight: None)


def _module_hook(network: ActorCritic) -> None:
    network.register_full_backward_hook(lambda *_: None)


def _freeze(network: ActorCritic) -> None:
    network.value_head.output.bias.requires_grad_(False)


def _widen(network: ActorCritic) -> None:
    network.double()


def _own_outputs(network: ActorCritic) -> None:
    network._distribution_params = lambda outputs, *_: 2 * outputs  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "change",
    [_hook, _hook_behind, _module_hook, _freeze, _widen, make_of_another],
)
def test_what_could_tell_the_difference_has_a_graph(change: Any) -> None:
    network = network_of({"width": 16})
    batch = batch_for(network)
    passed(network, batch)
    change(network)
    assert direct_pass(network, *batch) is None


def test_a_network_of_ones_own_has_a_graph() -> None:
    class Own(ActorCritic):
        def for_loss(self, *seen: Any) -> tuple[Tensor, Tensor]:
            params, value = super().for_loss(*seen)
            return 2 * params, value

    network = Own(SEEN, spaces.Discrete(3), MemoryConfig(width=16), PolicyConfig())
    assert direct_pass(network, *batch_for(network)) is None


GSDE: Any = {"kind": "gaussian", "std": "gsde"}


def _hook_of_std(network: ActorCritic) -> None:
    assert network.log_std is not None
    network.log_std.register_hook(lambda grad: 0.5 * grad)


def _freeze_std(network: ActorCritic) -> None:
    assert network.log_std is not None
    network.log_std.requires_grad_(False)


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({}, _own_outputs),
        ({}, _hook_of_std),
        ({}, _freeze_std),
        (GSDE, lambda network: None),
        (GSDE, lambda network: network.exploration.requires_grad_(False)),
    ],
)
def test_parameters_that_torch_makes_have_a_graph(options: Any, change: Any) -> None:
    network = network_of({"width": 16}, NUMBERS, action_distribution=options)
    batch = batch_for(network)
    assert has_plain_params(network) == (network.exploration is None)
    change(network)
    assert not has_plain_params(network)
    ways = [gradients(network, [batch], way) for way in (wholly, shortly)]
    for a, b in zip(*ways, strict=True):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))


def test_a_loss_that_leaves_something_out_has_no_gradient_of_it() -> None:
    network = network_of({"width": 16}, critic="separate")
    batch = batch_for(network)
    for reaches in (0, 1):
        found = []
        for is_direct in (False, True):
            network.zero_grad()
            inputs = loss_inputs(network, *batch, passed(network, batch) if is_direct else None)
            loss = inputs[reaches].square().sum()
            (inputs.backward or torch.autograd.backward)(loss)
            found.append([one.grad for one in network.parameters()])
            del inputs, loss  # and with them the buffers
        for a, b in zip(*found, strict=True):
            assert (a is None) == (b is None) and (a is None or torch.equal(a, b))
        assert any(a is None for a in found[0])


def test_so_do_modes_that_look_on() -> None:
    network = network_of({"width": 16})
    batch = batch_for(network)
    with torch.autograd.set_detect_anomaly(True):
        assert direct_pass(network, *batch) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert direct_pass(network, *batch) is None
    passed(network, batch)
