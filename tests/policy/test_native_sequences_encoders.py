"""The same node behind encoders of choices and of parts, and behind those that C does not know."""

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.sequence_chain import SequenceChain
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.auxiliary.inputs import ACTION_MASK, OBSERVATION
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.encoders.images import ImageEncoder

from .whole_sequences import (  # noqa: F401
    MEMORIES,
    assert_same,
    buffers_of_nan,
    by_modules,
    gradients,
    takes_node,
)

pytestmark = pytest.mark.skipif(not LOADED, reason="without the C library there is no such node")

AUXILIARY = {"previous_action": True, "previous_reward": True, "first_step": True}
SHARED_ENCODER = {"critic": "separate", "share_encoder": True}
SEEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "choice": (spaces.Discrete(5), {}),
    "choices": (spaces.MultiDiscrete([3, 4]), {}),
    "image": (spaces.Box(0, 255, (12, 12, 3), np.uint8), {"image_encoder": "flat"}),
    "parts": (spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(-1, 1, (2,), np.float32)), {}),
    "beside a vector": (spaces.Box(-1, 1, (2,), np.float32), AUXILIARY),
    "beside parts": (spaces.Dict(a=spaces.Discrete(3)), AUXILIARY),
    "masked": (spaces.Box(-1, 1, (2,), np.float32), {"action_mask": "info"}),
}


def observed(space: Any, policy: dict[str, Any], B: int, T: int) -> Any:
    """What an actor of three actions reads in sequences `[B, T]`."""
    drawn = [[space.sample() for _ in range(T)] for _ in range(B)]
    parts = {key: _stack([[one[key] for one in row] for row in drawn]) for key in _keys(space)}
    found: Any = parts or _stack(drawn)
    sizes = {"previous_action": 3, "previous_reward": 1, "first_step": 1}
    beside = {f"~{name}": torch.randn(B, T, n) for name, n in sizes.items() if policy.get(name)}
    if policy.get("action_mask"):
        beside[ACTION_MASK] = torch.rand(B, T, 3) < 0.7
        beside[ACTION_MASK][..., 0] = True
    if beside:
        found = {**(parts or {OBSERVATION: found}), **beside}
    return found


def _keys(space: Any) -> list[str]:
    return list(space.spaces) if isinstance(space, spaces.Dict) else []


def _stack(rows: Any) -> Tensor:
    return torch.from_numpy(np.stack([np.stack(row) for row in rows]))


@pytest.mark.parametrize("critic", [{}, {"critic": "separate"}, SHARED_ENCODER])
@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("memory", ["ms", "lstm"])
@pytest.mark.each_value
def test_of_what_other_encoders_make(memory: str, seen: str, critic: Any) -> None:
    """Those of images run in torch in front of the node, which hands its gradient on to them."""
    space, policy = SEEN[seen]
    space.seed(0)
    torch.manual_seed(0)
    options = PolicyConfig(**policy, **critic)
    network = ActorCritic(space, spaces.Discrete(3), MemoryConfig(**MEMORIES[memory]), options)
    for B, T, resets in ((3, 17, True), (2, 5, False)):
        x, state = observed(space, policy, B, T), network.initial_tensors(B)
        batch: Any = (x, state, (torch.rand(B, T) < 0.2) if resets else None)
        assert takes_node(network, batch)
        mine, theirs = network.for_loss(*batch), network(*batch)
        for a, b in zip(mine, theirs[:2], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        assert_same(gradients(network, mine), gradients(network, theirs))


@pytest.mark.parametrize("seen", ["choice", "parts", "beside a vector"])
def test_a_layer_of_two_encoders_has_the_sum_of_both_gradients(seen: str) -> None:
    space, policy = SEEN[seen]
    options = PolicyConfig(**policy, critic="separate")
    network: Any = ActorCritic(space, spaces.Discrete(3), MemoryConfig(width=16), options)
    network.critic_trunk.encoder[0] = network.trunk.encoder[0]
    batch: Any = (observed(space, policy, 3, 9), network.initial_tensors(3), None)
    assert takes_node(network, batch)
    assert_same(gradients(network, network.for_loss(*batch)), by_modules(network, batch))


IMAGE, FLAT = SEEN["image"]


def test_a_frozen_encoder_in_front_of_it_gets_no_gradient() -> None:
    space, options = IMAGE, PolicyConfig(**FLAT)
    network = ActorCritic(space, spaces.Discrete(3), MemoryConfig(width=16), options)
    network.trunk.encoder.requires_grad_(False)
    batch: Any = (observed(space, {}, 3, 9), network.initial_tensors(3), None)
    assert takes_node(network, batch)
    network.for_loss(*batch)[0].sin().sum().backward()
    mine = [weight.grad for weight in network.parameters()]
    network.zero_grad()
    network(*batch)[0].sin().sum().backward()
    assert_same(mine, [weight.grad for weight in network.parameters()])


def test_a_gradient_of_other_encoders_that_is_kept_stays_as_it_is() -> None:
    space, kept = IMAGE, []
    options = PolicyConfig(**FLAT)
    network = ActorCritic(space, spaces.Discrete(3), MemoryConfig(width=16), options)
    encoder = ImageEncoder.forward

    def keeping(self: Any, observation: Tensor) -> Tensor:
        out = encoder(self, observation)
        out.register_hook(kept.append)
        return out

    with mock.patch.object(ImageEncoder, "forward", keeping):
        for seed in (1, 2):
            space.seed(seed)
            batch: Any = (observed(space, {}, 3, 9), network.initial_tensors(3), None)
            network.for_loss(*batch)[0].sin().sum().backward()
            if seed == 1:
                before = kept[0].clone()
    assert len(kept) == 2
    assert torch.equal(kept[0], before)


@pytest.mark.parametrize("critic", [{}, {"critic": "separate"}, SHARED_ENCODER])
def test_a_gradient_that_is_not_finite_is_as_the_modules_have_it(critic: Any) -> None:
    space = spaces.Discrete(5)
    own = ActorCritic(space, spaces.Discrete(3), MemoryConfig(width=32), PolicyConfig(**critic))
    batch: Any = (observed(space, {}, 3, 9), own.initial_tensors(3), None)
    assert takes_node(own, batch)
    with mock.patch.object(SequenceChain, "backward", return_value=None):
        mine = gradients(own, own.for_loss(*batch))
    assert_same(mine, by_modules(own, batch))
