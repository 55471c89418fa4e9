"""Each sequence of a rollout is visited once per epoch, with all its fields and its state."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from xlstm_rl import RecurrentPPO
from xlstm_rl.agents.ppo import Sequences
from xlstm_rl.returns import generalized_advantage

STEPS, SEGMENTS, EPOCHS = 12, 3, 4
LENGTH = STEPS // SEGMENTS


@pytest.mark.parametrize("minibatches", [1, 3, 9])
@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name)
def test_every_sequence_comes_once_per_epoch_as_it_was_collected(
    countdown_vector: Callable[[AutoresetMode], SyncVectorEnv],
    mode: AutoresetMode,
    minibatches: int,
) -> None:
    agent = RecurrentPPO(
        countdown_vector(mode),
        memory={"width": 8, "num_heads": 1},
        policy={"previous_action": True, "critic": "separate"},
        agent={
            "rollout_steps": STEPS,
            "segment_steps": LENGTH,
            "epochs": EPOCHS,
            "minibatches": minibatches,
        },
        logger={"kind": "none"},
    )
    collector = agent._make_collector()
    collector.collect()
    rollout = collector.collect()  # begins in the middle of episodes
    data = rollout.data
    # every step has a number of its own, by which it is known again
    data["log_prob"] = torch.arange(3.0 * STEPS).view(3, STEPS)
    keys = ("reward", "value", "next_value", "terminated", "truncated")
    config = agent.algorithm
    advantage, target = generalized_advantage(
        *(data[key] for key in keys), config.gamma, config.gae_lambda
    )
    expected = {**data, "advantage": advantage, "target": target}
    batches: list[Sequences] = []

    def record(batch: Sequences, clip: float, moments: object) -> dict[str, torch.Tensor]:
        batches.append(batch)
        return {"approx_kl": torch.zeros(())}

    agent._minibatch = record  # type: ignore[method-assign]
    agent.update(rollout, 0.0)
    assert len(batches) == EPOCHS * minibatches
    orders = []
    for epoch in range(EPOCHS):
        part = batches[epoch * minibatches : (epoch + 1) * minibatches]
        steps = torch.cat([batch.log_prob for batch in part])
        assert steps.shape == (3 * SEGMENTS, LENGTH)
        assert sorted(steps.flatten().tolist()) == list(range(3 * STEPS))
        orders.append(tuple(steps[:, 0].tolist()))
        for batch in part:
            for row in range(len(batch.log_prob)):
                _assert_aligned(batch, row, expected, rollout.segment_states)
    assert minibatches == 1 or Counter(orders).most_common()[0][1] < EPOCHS  # and shuffled


def _assert_aligned(batch: Sequences, row: int, data: Any, states: Any) -> None:
    env, first = divmod(int(batch.log_prob[row, 0]), STEPS)
    steps = slice(first, first + LENGTH)
    for name in ("action", "log_prob", "value", "advantage", "target", "reset"):
        assert torch.equal(getattr(batch, name)[row], data[name][env, steps]), name
    assert not isinstance(batch.observation, torch.Tensor)
    for name, seen in data["observation"].items():
        assert torch.equal(batch.observation[name][row], seen[env, steps])
    if batch.valid is None:
        assert data["valid"].all()
    else:
        assert torch.equal(batch.valid[row], data["valid"][env, steps])
    for ours, expected in zip(batch.state, states[first // LENGTH], strict=True):
        assert torch.equal(ours[row], expected[env])


@pytest.mark.parametrize(
    ("num_envs", "count"), [(1, 1), (2, 2), (3, 3), (6, 3), (7, 1), (10, 2), (12, 4), (16, 4)]
)
def test_as_many_minibatches_as_fit_where_none_are_asked_for(num_envs: int, count: int) -> None:
    options: dict[str, Any] = {"rollout_steps": 8, "epochs": 1}
    with RecurrentPPO(
        "CartPole-v1",
        env={"num_envs": num_envs},
        memory={"width": 8, "num_heads": 1},
        agent=options,
        logger={"kind": "none"},
    ) as agent:
        seen: list[float] = []
        agent.learn(8, on_update=lambda _, metrics: seen.append(metrics["loss/minibatches"]))
    assert seen == [count]
    with pytest.raises(ValueError, match=r"agent.minibatches=4 does not divide the 10 sequences"):
        RecurrentPPO("CartPole-v1", env={"num_envs": 10}, agent={"minibatches": 4})
