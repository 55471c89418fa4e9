"""The module in TorchRL's losses, value estimators and replay buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict, set_lazy_legacy
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.data import (
    LazyTensorStorage,
    OneHot,
    SliceSampler,
    TensorDictReplayBuffer,
)
from torchrl.envs.transforms import BurnInTransform
from torchrl.modules import (
    ActorValueOperator,
    OneHotCategorical,
    ProbabilisticActor,
    QValueActor,
    ValueOperator,
    recurrent_mode,
    set_recurrent_mode,
)
from torchrl.objectives import A2CLoss, ClipPPOLoss, DiscreteSACLoss, DQNLoss, SoftUpdate
from torchrl.objectives.value import GAE, TD0Estimator

from xlstm_rl import XLSTMModule

from .conftest import IS_OLD, torchrl_014

STATE, AFTER = "recurrent_state", ("next", "recurrent_state")


def _trunk(memory: dict[str, Any], **options: Any) -> XLSTMModule:
    return XLSTMModule(3, memory, in_key="observation", out_key="embed", **options)


def _linear(outputs: int, key: str) -> TensorDictModule:
    return TensorDictModule(nn.Linear(8, outputs), in_keys=["embed"], out_keys=[key])


def _actor(trunk: Any, return_log_prob: bool = True) -> Any:
    return ProbabilisticActor(
        TensorDictSequential(trunk, _linear(2, "logits")) if trunk else _linear(2, "logits"),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
        return_log_prob=return_log_prob,
    )


def _collect(policy: Any, trunk: XLSTMModule, rows: int = 3, steps: int = 24) -> TensorDict:
    """A rollout `[B, T]` with episode ends inside, as a collector would store it."""
    weight = next(trunk.parameters())
    obs = torch.randn(rows, steps + 1, 3, dtype=weight.dtype)
    ends = torch.rand(rows, steps, 1) < 0.15
    ends[0, 5] = True
    final = torch.randn(rows, steps, 3, dtype=weight.dtype)
    state = torch.zeros(rows, trunk.layout.size, dtype=weight.dtype)
    init = torch.ones(rows, 1, dtype=torch.bool)
    found = []
    for t in range(steps):
        one = TensorDict(
            {"observation": obs[:, t], STATE: state, "is_init": init}, batch_size=[rows]
        )
        with torch.no_grad():
            one = policy(one)
        end = ends[:, t]
        one["next"].update(
            {
                "observation": torch.where(end, final[:, t], obs[:, t + 1]),
                "is_init": torch.zeros_like(end),
                "reward": torch.randn(rows, 1, dtype=weight.dtype),
                "done": end,
                "terminated": end & (torch.rand(rows, 1) < 0.5),
            }
        )
        found.append(one)
        state, init = one[AFTER].masked_fill(end, 0.0), end
    batch = torch.stack(found, 1)
    batch.refine_names(None, "time")
    return batch


def _values_by_steps(critic: Any, batch: TensorDict, root: bool) -> torch.Tensor:
    """The critic's value of every step, from the state that is stored with it."""
    source = batch if root else batch["next"]
    one = source.select("observation", STATE, "is_init").clone().flatten(0, 1)
    with set_recurrent_mode(False), torch.no_grad():
        return critic(one)["state_value"].unflatten(0, batch.shape)


@pytest.mark.parametrize(
    "shifted",
    [False, pytest.param(True, marks=torchrl_014("does not mark what a shifted pass leaves out"))],
)
@pytest.mark.parametrize(("deactivate_vmap", "lazy"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("estimator", [GAE, TD0Estimator])
@pytest.mark.each_value
def test_recurrent_values_are_those_of_steps(
    stateful: dict[str, Any], shifted: bool, deactivate_vmap: bool, lazy: bool, estimator: Any
) -> None:
    trunk = _trunk(stateful).double()
    critic = TensorDictSequential(trunk, _linear(1, "state_value")).double()
    batch = _collect(critic, trunk)
    value, value_next = (_values_by_steps(critic, batch, root) for root in (True, False))
    batch = batch.exclude("state_value", ("next", "state_value"))
    options = {} if estimator is TD0Estimator else {"lmbda": 0.9}
    find = estimator(
        gamma=0.99,
        value_network=critic,
        shifted=shifted,
        deactivate_vmap=deactivate_vmap,
        **options,
    )
    with set_recurrent_mode(True), set_lazy_legacy(lazy):
        out = find(batch)
    known = ~batch["next", "terminated"]
    if shifted:  # what does not fit into T + 1 steps is marked, and counts nowhere
        known &= out["shifted_valid"].unsqueeze(-1)
    assert known.any()
    torch.testing.assert_close(out["state_value"][known], value[known], rtol=0, atol=1e-10)
    torch.testing.assert_close(
        out["next", "state_value"][known], value_next[known], rtol=0, atol=1e-10
    )


def _ppo(memory: dict[str, Any]) -> tuple[Any, XLSTMModule, Callable[[TensorDict], Any]]:
    trunk = _trunk(memory)
    both = ActorValueOperator(
        trunk, _actor(None), ValueOperator(nn.Linear(8, 1), in_keys=["embed"])
    )
    policy, critic = both.get_policy_operator(), both.get_value_operator()
    loss = ClipPPOLoss(policy, critic)
    gae = GAE(gamma=0.99, lmbda=0.9, value_network=critic, deactivate_vmap=True)

    def prepare(batch: TensorDict) -> Any:
        with torch.no_grad(), set_recurrent_mode(True):
            return gae(batch)

    loss.prepare = prepare
    return loss, trunk, policy


def _a2c(memory: dict[str, Any]) -> Any:
    trunk = _trunk(memory)
    both = ActorValueOperator(
        trunk, _actor(None), ValueOperator(nn.Linear(8, 1), in_keys=["embed"])
    )
    policy, critic = both.get_policy_operator(), both.get_value_operator()
    loss = A2CLoss(policy, critic)
    loss.make_value_estimator(gamma=0.99, deactivate_vmap=True)
    return loss, trunk, policy


def _dqn(memory: dict[str, Any]) -> Any:
    trunk = _trunk(memory)
    actor = QValueActor(
        TensorDictSequential(trunk, _linear(2, "action_value")),
        in_keys=trunk.in_keys,
        spec=OneHot(2),
    )
    loss = DQNLoss(actor, action_space="one-hot", delay_value=True)
    SoftUpdate(loss, eps=0.99)
    return loss, trunk, actor


def _sac(memory: dict[str, Any], deactivate_vmap: bool = False) -> Any:
    trunk = _trunk(memory)
    actor = _actor(trunk, return_log_prob=False)
    critic = TensorDictSequential(
        XLSTMModule(3, memory, in_keys=["observation", STATE], out_keys=["embed", AFTER]),
        _linear(2, "action_value"),
    )
    loss = DiscreteSACLoss(
        actor_network=actor,
        qvalue_network=critic,
        action_space="one-hot",
        num_actions=2,
        num_qvalue_nets=2,
        deactivate_vmap=deactivate_vmap,
    )
    SoftUpdate(loss, eps=0.99)
    return loss, trunk, actor


def _sac_in_turn(memory: dict[str, Any]) -> Any:
    return _sac(memory, deactivate_vmap=True)


@pytest.mark.parametrize("make", [_ppo, _a2c, _dqn, _sac, _sac_in_turn])
@pytest.mark.each_value
def test_losses_run_sequences_and_reach_every_weight(stateful: dict[str, Any], make: Any) -> None:
    loss, trunk, policy = make(stateful)
    batch = _collect(policy, trunk)
    if hasattr(loss, "prepare"):
        batch = loss.prepare(batch)
    if isinstance(loss, DQNLoss):
        loss.make_value_estimator(gamma=0.99)
    out = loss(batch)
    assert recurrent_mode() is None
    total = sum(value for key, value in out.items() if key.startswith("loss"))
    total.backward()
    for name, weight in loss.named_parameters():
        if weight.requires_grad and "alpha" not in name and "target" not in name:
            assert weight.grad is not None and weight.grad.isfinite().all(), name
            assert weight.grad.any(), name


def test_a_loss_that_stacks_lazily_is_the_same(stateful: dict[str, Any]) -> None:
    loss, trunk, policy = _a2c(stateful)
    batch = _collect(policy, trunk)
    expected = loss(batch.clone())
    with set_lazy_legacy(True):
        found = loss(batch)
    assert (found == expected).all()


def test_ppo_ratio_is_one_before_the_first_update(stateful: dict[str, Any]) -> None:
    loss, trunk, policy = _ppo(stateful)
    batch = loss.prepare(_collect(policy, trunk))
    out = loss(batch)
    torch.testing.assert_close(out["kl_approx"], torch.zeros(()), rtol=0, atol=1e-5)
    if not IS_OLD:  # which does not report it
        torch.testing.assert_close(out["max_ratio"], torch.ones(()), rtol=0, atol=1e-5)


@torchrl_014("does not mark the beginning of a slice")
def test_flat_slices_start_from_their_stored_states(stateful: dict[str, Any]) -> None:
    trunk = _trunk(stateful)
    policy = TensorDictSequential(trunk, _linear(2, "logits"))
    batch = _collect(policy, trunk, rows=2, steps=40)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(100, ndim=1),
        sampler=SliceSampler(num_slices=4, end_key=("next", "done"), strict_length=True),
        batch_size=16,
    )
    batch["next", "done"][:, -1] = True
    buffer.extend(batch.reshape(-1))
    for _ in range(5):
        sample = buffer.sample()
        assert sample["is_init"].view(4, 4)[:, 0].all()
        stored = sample["embed"].clone()  # what acting gave
        with set_recurrent_mode(True):
            flat = trunk(sample.clone())
            rows = trunk(sample.clone().view(4, 4))
        torch.testing.assert_close(flat["embed"], stored, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(rows["embed"].view(16, 8), stored, rtol=1e-4, atol=1e-5)
        last = flat[AFTER].view(4, 4, -1)[:, -1]
        torch.testing.assert_close(last, rows[AFTER][:, -1])


def test_burn_in_brings_states_up_to_date(stateful: dict[str, Any]) -> None:
    trunk = _trunk(stateful, default_recurrent_mode=True)
    with set_recurrent_mode(False):
        batch = _collect(trunk, trunk, rows=3, steps=20)
    stale = batch.select("observation", "is_init", STATE, "embed")
    stale[STATE][:, 1:] = 7.0  # never read: only the first is burnt in from
    stale[STATE][stale["is_init"].squeeze(-1)] = 0
    expected = batch[AFTER][:, 7]
    out = BurnInTransform([trunk], burn_in=8)(stale)
    assert out.shape == (3, 12)
    torch.testing.assert_close(out[STATE][:, 0], expected, rtol=1e-4, atol=1e-5)


def test_a_done_inside_a_replayed_batch_resets_the_state(stateful: dict[str, Any]) -> None:
    trunk = _trunk(stateful)
    policy = TensorDictSequential(trunk, _linear(2, "logits"))
    batch = _collect(policy, trunk)
    changed = batch.clone()
    changed["observation"][0, :6] = torch.randn(6, 3)  # the episode that ends at step 5
    with set_recurrent_mode(True):
        one, other = trunk(batch), trunk(changed)
    assert not torch.allclose(one["embed"][0, :6], other["embed"][0, :6])
    torch.testing.assert_close(one["embed"][0, 6:], other["embed"][0, 6:], rtol=0, atol=0)
