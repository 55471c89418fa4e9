"""On a GPU the modules give the numbers that they give on a CPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torchrl.modules import set_recurrent_mode

from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

from .conftest import make_module

pytestmark = pytest.mark.gpu


def test_a_sequence_and_its_gradients(stateful: dict[str, Any], sequences: Any) -> None:
    module = make_module(stateful, default_recurrent_mode=True)
    batch = sequences.batch(module, 3, 40, init=0.1, stored=0.3)
    there = copy.deepcopy(module).cuda()
    found, expected = there(batch.to("cuda")), module(batch)
    for key in ("embed", ("next", "recurrent_state")):
        assert found[key].is_cuda
        torch.testing.assert_close(found[key].cpu(), expected[key], atol=2e-5, rtol=1e-4)
    for one in (found, expected):
        one["embed"].square().mean().backward()
    for mine, theirs in zip(there.parameters(), module.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad.cpu(), theirs.grad, atol=2e-5, rtol=1e-3)


def test_steps_are_the_sequence(stateful: dict[str, Any], sequences: Any) -> None:
    module = make_module(stateful, default_recurrent_mode=True).cuda()
    batch = sequences.batch(module, 3, 12, init=0.2, stored=0.5).to("cuda")
    with set_recurrent_mode(False):
        y, _ = sequences.steps(module, batch)
    torch.testing.assert_close(module(batch)["embed"], y, atol=2e-5, rtol=1e-4)


def test_a_policy_as_an_actor(stateful: dict[str, Any]) -> None:
    box = spaces.Box(-1.0, 1.0, (4,))
    memory, network = MemoryConfig(**stateful), PolicyConfig(head_width=8)
    policy = Policy(box, spaces.Discrete(3), memory, network, NormalizationConfig())
    obs, chosen = torch.randn(6, 5, 4), []
    for device in ("cpu", "cuda"):
        actor = policy.to(device).as_tensordict_module(deterministic=True)
        now, actions = torch.zeros(5, actor.layout.size, device=device), []
        for t in range(6):
            first = torch.full((5, 1), t == 0, device=device)
            row = TensorDict(
                {"observation": obs[t].to(device), "recurrent_state": now, "is_init": first},
                batch_size=[5],
            )
            done = actor(row)
            now = done["next", "recurrent_state"]
            actions.append(done["action"].cpu())
        chosen.append((torch.stack(actions), now.cpu()))
    (mine, after), (theirs, expected) = chosen
    assert torch.equal(mine, theirs)
    torch.testing.assert_close(after, expected, atol=2e-5, rtol=1e-4)
