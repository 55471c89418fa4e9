"""What an environment or a wrapper says at steps that only reset counts nowhere."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers.vector import TransformReward

from xlstm_rl import RecurrentPPO
from xlstm_rl.collection.collector import Collector
from xlstm_rl.envs import EnvConfig, make_vector_env

Make = Callable[[AutoresetMode], SyncVectorEnv]
NEXT_STEP = AutoresetMode.NEXT_STEP


class Answers(VectorWrapper):
    """Lets a function see and change what the steps answer, and which of them only reset."""

    def __init__(self, env: VectorEnv[Any, Any, Any], change: Callable[[list[Any], Any], None]):
        super().__init__(env)
        self.tensors, self.may_truncate = getattr(env, "tensors", False), True
        self.change, self.over = change, None

    def step(self, actions: Any) -> Any:
        skipped, answer = self.over, list(self.env.step(actions))
        self.over = answer[2] | answer[3]
        if skipped is not None and bool(skipped.any()):
            self.change(answer, skipped)
        return tuple(answer)


def _pay(amount: float) -> Callable[[list[Any], Any], None]:
    def change(answer: list[Any], skipped: Any) -> None:
        answer[1][skipped] = amount

    return change


def _end(place: int) -> Callable[[list[Any], Any], None]:
    def change(answer: list[Any], skipped: Any) -> None:
        answer[place] = answer[place] | skipped

    return change


CHANGES = {
    "reward": _pay(1000.0),
    "nan": _pay(np.nan),
    "terminated": _end(2),
    "truncated": _end(3),
}


def _chain(tensors: bool) -> VectorEnv[Any, Any, Any]:
    kwargs = {"length": 3, "bits": 1, "tensors": tensors}
    return make_vector_env(
        EnvConfig("xlstm_rl/MemoryChain-v0", 3, "native", autoreset="next_step", kwargs=kwargs)
    )


def _rollouts(env: VectorEnv[Any, Any, Any]) -> tuple[Any, Collector, RecurrentPPO]:
    """Two rollouts, scaled as training does, by a policy that reads the previous reward."""
    agent = RecurrentPPO(
        env,
        memory={"kind": "gru", "width": 8},
        policy={"previous_reward": True, "first_step": True},
        agent={"rollout_steps": 16, "minibatches": 1, "epochs": 1},
        logger={"kind": "none"},
    )
    collector = agent._make_collector()
    rollouts = [collector.collect(), collector.collect()]
    for rollout in rollouts:
        agent._prepare(rollout)
    return rollouts, collector, agent


def _assert_same(env: VectorEnv[Any, Any, Any], plain: VectorEnv[Any, Any, Any]) -> None:
    (ours, _, agent), (expected, _, other) = _rollouts(env), _rollouts(plain)
    for rollout, one in zip(ours, expected, strict=True):
        assert (~one.data["valid"]).any()
        assert rollout.episode_returns == one.episode_returns
        assert rollout.episode_lengths == one.episode_lengths
        for name, column in one.data.items(True, True):
            assert torch.equal(rollout.data[name], column), name
    ours_state, state = agent.reward_normalizer, other.reward_normalizer
    assert ours_state is not None and state is not None
    assert torch.equal(ours_state.moments.var, state.moments.var)
    assert torch.equal(agent.policy.auxiliary.scale, other.policy.auxiliary.scale)


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_wrapper_says_at_an_autoreset_step_changes_nothing(
    countdown_vector: Make, change: str
) -> None:
    _assert_same(Answers(countdown_vector(NEXT_STEP), CHANGES[change]), countdown_vector(NEXT_STEP))


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_so_it_is_around_a_native_form(change: str, tensors: bool) -> None:
    _assert_same(Answers(_chain(tensors), CHANGES[change]), _chain(tensors))


def test_a_reward_that_is_shifted_for_all_steps_counts_at_valid_ones_alone(
    countdown_vector: Make,
) -> None:
    env = TransformReward(countdown_vector(NEXT_STEP), lambda reward: reward + 1)
    rollouts, _, _ = _rollouts(env)
    lengths = [n for one in rollouts for n in one.episode_lengths]
    # Countdown pays 1 + 2 + ... + n, and now one more at each of the n steps
    assert [g for one in rollouts for g in one.episode_returns] == [
        n * (n + 1) / 2 + n for n in lengths
    ]
