"""The module in TorchRL's environments and collectors: transforms, states, episode starts."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.envs import (
    GymEnv,
    InitTracker,
    ParallelEnv,
    SerialEnv,
    TensorDictPrimer,
    TransformedEnv,
)
from torchrl.modules import OneHotCategorical, ProbabilisticActor, set_recurrent_mode
from torchrl.modules.utils import get_primers_from_module

from xlstm_rl import RecurrentPPO, XLSTMModule

from .conftest import Collector, MultiSyncCollector, get_env_transforms_from_module, torchrl_014

STATE, AFTER = "recurrent_state", ("next", "recurrent_state")


def _policy(memory: dict[str, Any]) -> Any:
    module = XLSTMModule(4, memory, in_key="observation", out_key="embed")
    head = TensorDictModule(nn.Linear(8, 2), in_keys=["embed"], out_keys=["logits"])
    return ProbabilisticActor(
        TensorDictSequential(module, head),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
    )


def _module_of(policy: Any) -> XLSTMModule:
    return next(one for one in policy.modules() if isinstance(one, XLSTMModule))


def _env(policy: Any | None = None) -> Any:
    env = GymEnv("CartPole-v1")
    if policy is not None:
        return TransformedEnv(env, get_env_transforms_from_module(policy))
    return env


def _check(batch: TensorDict, policy: Any) -> None:
    """Every step starts from the state after the one before, or from zeros; sequences agree."""
    batch = batch.detach()
    init = batch["is_init"].squeeze(-1)
    assert init[..., 1:].any(), "no episode ended: the test tests nothing"
    carried = ~init[..., 1:]
    torch.testing.assert_close(
        batch[STATE][..., 1:, :][carried], batch[AFTER][..., :-1, :][carried], rtol=0, atol=0
    )
    assert not batch[STATE][init].any()
    ends = torch.cat((init[..., 1:], torch.ones_like(init[..., :1])), -1)
    assert (batch[AFTER] != 0).any(-1).all()
    with set_recurrent_mode(True):
        found = _module_of(policy)(batch.select("observation", STATE, "is_init"))
    torch.testing.assert_close(found["embed"], batch["embed"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[AFTER][ends], batch[AFTER][ends], rtol=1e-4, atol=1e-5)
    assert not found[AFTER][~ends].any()


def test_single_environment(xlstm: dict[str, Any]) -> None:
    policy = _policy(xlstm)
    _check(_env(policy).rollout(80, policy, break_when_any_done=False), policy)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.each_value
def test_serial_environments_with_transforms_inside_or_outside(
    stateful: dict[str, Any], outside: bool
) -> None:
    policy = _policy(stateful)
    env = SerialEnv(2, functools.partial(_env, None if outside else policy))
    if outside:
        env = TransformedEnv(env, get_env_transforms_from_module(policy))
    _check(env.rollout(60, policy, break_when_any_done=False), policy)


def test_transforms_inside_and_outside_give_the_same_rollout(xlstm: dict[str, Any]) -> None:
    policy, found = _policy(xlstm), []
    for outside in (False, True):
        env = SerialEnv(2, functools.partial(_env, None if outside else policy))
        if outside:
            env = TransformedEnv(env, get_env_transforms_from_module(policy))
        env.set_seed(0)
        torch.manual_seed(0)
        found.append(env.rollout(40, policy, break_when_any_done=False))
    for key in ("observation", STATE, AFTER, "is_init", "embed"):
        torch.testing.assert_close(found[0][key], found[1][key], rtol=0, atol=0)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.few(1)
def test_parallel_environments_carry_the_state(xlstm: dict[str, Any], outside: bool) -> None:
    policy = _policy(xlstm)
    env = ParallelEnv(
        2, functools.partial(_env, None if outside else policy), mp_start_method="fork"
    )
    if outside:
        env = TransformedEnv(env, get_env_transforms_from_module(policy))
    try:
        _check(env.rollout(60, policy, break_when_any_done=False), policy)
    finally:
        env.close()


@pytest.mark.usefixtures("forked")
def test_parallel_environments_of_different_kinds_carry_the_state(xlstm: dict[str, Any]) -> None:
    policy = _policy(xlstm)
    other = functools.partial(_heavier, policy)
    env = ParallelEnv(2, [functools.partial(_env, policy), other], mp_start_method="fork")
    try:
        _check(env.rollout(60, policy, break_when_any_done=False), policy)
    finally:
        env.close()


def _heavier(policy: Any) -> Any:
    env = GymEnv("CartPole-v1", frame_skip=2)
    return TransformedEnv(env, get_env_transforms_from_module(policy))


def test_without_a_primer_the_first_step_says_so(xlstm: dict[str, Any]) -> None:
    policy = _policy(xlstm)
    env = TransformedEnv(GymEnv("CartPole-v1"), InitTracker())
    with pytest.raises(KeyError, match=r"make_tensordict_primer\(\)"):
        env.rollout(3, policy)


@torchrl_014("has collectors that do not add the transforms of a policy")
@pytest.mark.parametrize("wrapped", [False, True])
def test_collector_adds_the_transforms_once(xlstm: dict[str, Any], wrapped: bool) -> None:
    policy = _policy(xlstm)
    collector = Collector(
        _env(policy if wrapped else None),
        policy,
        frames_per_batch=80,
        total_frames=160,
        auto_register_policy_transforms=True,
    )
    try:
        kinds = [type(one).__name__ for one in collector.env.transform]
        assert kinds.count("InitTracker") == kinds.count("TensorDictPrimer") == 1
        for batch in collector:
            _check(batch, policy)
    finally:
        collector.shutdown()


@torchrl_014("has collectors that do not add the transforms of a policy")
def test_collector_takes_a_batch_of_environments_with_their_own_trackers(
    xlstm: dict[str, Any],
) -> None:
    policy = _policy(xlstm)
    env = SerialEnv(2, functools.partial(_tracked, None))
    collector = Collector(
        env,
        policy,
        frames_per_batch=120,
        total_frames=240,
        auto_register_policy_transforms=True,
    )
    try:
        for batch in collector:
            assert batch.shape == (2, 60)
            _check(batch, policy)
    finally:
        collector.shutdown()


def _tracked(_: None) -> Any:
    return TransformedEnv(GymEnv("CartPole-v1"), InitTracker())


def test_collector_takes_a_policy_factory(xlstm: dict[str, Any]) -> None:
    policy = _policy(xlstm)
    collector = Collector(
        _env(policy), policy_factory=lambda: policy, frames_per_batch=80, total_frames=80
    )
    try:
        for batch in collector:
            _check(batch, policy)
    finally:
        collector.shutdown()


@pytest.mark.slow
def test_several_processes_collect(xlstm: dict[str, Any]) -> None:
    policy = _policy(xlstm)
    collector = MultiSyncCollector(
        [functools.partial(_env, policy)] * 2,
        policy,
        frames_per_batch=160,
        total_frames=320,
        cat_results="stack",
    )
    try:
        for batch in collector:
            assert batch.shape == (2, 80)
            _check(batch, policy)
            with torch.no_grad():
                for weight in policy.parameters():
                    weight.mul_(1.01)
            collector.update_policy_weights_()
    finally:
        collector.shutdown()


@torchrl_014("takes no policy for an environment")
def test_environment_takes_the_policy_as_an_argument(xlstm: dict[str, Any]) -> None:
    policy = _policy(xlstm)
    env = GymEnv("CartPole-v1", policy=policy)
    _check(env.rollout(80, policy, break_when_any_done=False), policy)


def test_primer_is_found_in_any_submodule(memory: dict[str, Any]) -> None:
    policy = _policy(memory)
    primer = get_primers_from_module(policy)
    assert isinstance(primer, TensorDictPrimer)
    assert primer.primers[STATE].shape == (_module_of(policy).layout.size,)


@pytest.mark.parametrize("key", ["is_init", "first"])
def test_tracker_stands_before_the_primer(xlstm: dict[str, Any], key: str) -> None:
    module = XLSTMModule(4, xlstm, in_keys=["observation", STATE, key], out_keys=["embed", AFTER])
    transforms = get_env_transforms_from_module(module, init_key=key)
    assert [type(one) for one in transforms] == [InitTracker, TensorDictPrimer]
    env = TransformedEnv(GymEnv("CartPole-v1"), transforms)
    assert env.rollout(5, TensorDictSequential(module, _left()))[key].sum() == 1


def _left() -> TensorDictModule:
    def act(embed: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1, 0]).expand(*embed.shape[:-1], 2)

    return TensorDictModule(act, in_keys=["embed"], out_keys=["action"])


@pytest.mark.parametrize("key", [("agent", "memory"), ("a", "b", "memory")])
def test_nested_state_is_carried(xlstm: dict[str, Any], key: tuple[str, ...]) -> None:
    module = XLSTMModule(4, xlstm, in_keys=["observation", key], out_keys=["embed", ("next", *key)])
    env = SerialEnv(
        2, lambda: TransformedEnv(GymEnv("CartPole-v1"), get_env_transforms_from_module(module))
    )
    batch = env.rollout(40, TensorDictSequential(module, _left()), break_when_any_done=False)
    batch = batch.detach()
    init = batch["is_init"].squeeze(-1)
    assert init[:, 1:].any()
    carried = ~init[:, 1:]
    torch.testing.assert_close(
        batch[key][:, 1:][carried], batch[("next", *key)][:, :-1][carried], rtol=0, atol=0
    )
    assert not batch[key][init].any()


@torchrl_014("has no transforms on a batch of Gymnasium's")
def test_environment_that_is_a_batch_already(xlstm: dict[str, Any]) -> None:
    policy = _policy(xlstm)
    env = GymEnv("CartPole-v1", num_envs=2)  # with a transform of its own already
    env.append_transform(get_env_transforms_from_module(policy))
    try:
        _check(env.rollout(60, policy, break_when_any_done=False), policy)
    finally:
        env.close()


def test_primer_fills_a_batch_of_any_size(xlstm: dict[str, Any]) -> None:
    module = XLSTMModule(4, xlstm, in_key="observation", out_key="embed")
    for size in (2, 3):
        env = SerialEnv(size, functools.partial(_env, None))
        env = TransformedEnv(env, get_env_transforms_from_module(module))
        assert env.reset()[STATE].shape == (size, module.layout.size)
        assert env.observation_spec[STATE].shape == (size, module.layout.size)


@pytest.mark.parametrize("is_made", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: GymEnv("CartPole-v1"),
        lambda: TransformedEnv(GymEnv("CartPole-v1"), InitTracker()),
        lambda: SerialEnv(2, lambda: GymEnv("CartPole-v1")),
    ],
)
def test_our_agents_say_how_they_take_an_environment_of_torchrl(make: Any, is_made: bool) -> None:
    env = make() if is_made else make
    with pytest.raises(ValueError, match=r"of TorchRL, expected .*register_gym.*docs/torchrl.md"):
        RecurrentPPO(env, logger={"kind": "none"})
