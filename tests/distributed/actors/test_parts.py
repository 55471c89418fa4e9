"""Rollouts that are cut into those of several actors and put together again."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDictBase

from xlstm_rl import RecurrentPPO
from xlstm_rl.collection.rollout import Rollout
from xlstm_rl.distributed.actors.memory import Blocks, Layout
from xlstm_rl.distributed.actors.parts import joined_rollout, said_of, tensors_of


class Nested(gymnasium.Env[Any, Any]):
    """Two parts, one inside another, and episodes of three steps."""

    observation_space = gymnasium.spaces.Dict(
        {
            "x": gymnasium.spaces.Box(-1.0, 1.0, (2,)),
            "inner": gymnasium.spaces.Dict({"y": gymnasium.spaces.Discrete(3)}),
        }
    )
    action_space = gymnasium.spaces.Discrete(2)

    def _observation(self) -> dict[str, Any]:
        return {"x": np.full(2, 0.25 * self.t, np.float32), "inner": {"y": np.int64(self.t % 3)}}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        info = {"is_success": bool(self.np_random.integers(2)), "far": float(self.t)}
        return self._observation(), 1.0, self.t == 3, False, info if self.t == 3 else {}


def collected(memory: str, env: Any) -> Rollout:
    agent = RecurrentPPO(
        env,
        env={"num_envs": 6, "info_keywords": ("far",), "autoreset": "next_step"}
        | {"vectorization": "sync"},
        memory={"kind": memory, "width": 8},
        policy={"head_width": 8, "critic": "separate"},
        agent={"rollout_steps": 8, "segment_steps": 4, "minibatches": 1},
        logger={"kind": "none"},
    )
    with agent:
        collector: Any = agent._make_collector()
        collector.collect()
        rollout: Rollout = collector.collect()
    return rollout


def cut(rollout: Rollout, rows: slice) -> Rollout:
    mine = [i for i, (_, env) in enumerate(rollout.episode_ends) if rows.start <= env < rows.stop]
    return Rollout(
        rollout.data[rows],
        [tuple(one[rows] for one in state) for state in rollout.segment_states],
        rollout.raw_observation[rows],
        [rollout.episode_returns[i] for i in mine],
        [rollout.episode_lengths[i] for i in mine],
        [rollout.episode_successes[i] for i in mine] if rollout.episode_successes else [],
        [(rollout.episode_ends[i][0], rollout.episode_ends[i][1] - rows.start) for i in mine],
        {key: [values[i] for i in mine] for key, values in rollout.episode_infos.items()},
    )


@pytest.mark.parametrize("memory", ["xlstm", "mlp"])
@pytest.mark.parametrize("env", [Nested, "CartPole-v1"])
def test_parts_of_a_rollout_that_went_through_shared_memory_are_the_rollout(
    memory: str, env: Any
) -> None:
    rollout = collected(memory, env)
    parts, said = [], []
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        one = cut(rollout, rows)
        tensors = tensors_of(one)
        blocks = Blocks(Layout.of(tensors), 2)
        blocks.write(1, tensors)
        parts.append(blocks[3])  # counted round
        said.append(said_of(one))
    found = joined_rollout(parts, said, torch.device("cpu"))
    assert found.data.batch_size == rollout.data.batch_size
    assert (found.data == rollout.data).all()
    assert set(found.data.keys(True, True)) == set(rollout.data.keys(True, True))
    if isinstance(rollout.raw_observation, TensorDictBase):
        assert (found.raw_observation == rollout.raw_observation).all()
    else:
        assert torch.equal(found.raw_observation, rollout.raw_observation)
    assert len(found.segment_states) == len(rollout.segment_states) == 2
    for state, other in zip(found.segment_states, rollout.segment_states, strict=True):
        assert len(state) == len(other)
        assert all(torch.equal(*pair) for pair in zip(state, other, strict=True))
    by_end = sorted(range(len(rollout.episode_ends)), key=rollout.episode_ends.__getitem__)
    assert found.episode_ends == [rollout.episode_ends[i] for i in by_end]
    assert found.episode_returns == [rollout.episode_returns[i] for i in by_end]
    assert found.episode_lengths == [rollout.episode_lengths[i] for i in by_end]
    assert sorted(found.episode_successes) == sorted(rollout.episode_successes)
    assert {key: sorted(values) for key, values in found.episode_infos.items()} == {
        key: sorted(values) for key, values in rollout.episode_infos.items()
    }


def test_blocks_keep_every_type_and_size_apart() -> None:
    tensors = {
        "flags": torch.tensor([True, False, True]),
        "none": torch.empty(2, 0),
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "bytes": torch.arange(70, dtype=torch.uint8).view(7, 10),
        "halves": torch.randn(3, 5).bfloat16(),
    }
    blocks = Blocks(Layout.of(tensors), 3)
    again = Blocks(blocks.layout, 3, blocks.file)  # as another process has it
    for index in range(3):
        blocks.write(index, tensors)
    blocks[1]["scalar"].zero_()
    for index in (0, 2):
        for name, value in tensors.items():
            assert torch.equal(again[index][name], value)
            assert again[index][name].shape == value.shape
    assert again[1]["scalar"] == 0 and torch.equal(again[1]["halves"], tensors["halves"])
    blocks.close()
