"""The critic's values of a rollout, wherever the rollout is cut."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from xlstm_rl.collection.collector import Collector
from xlstm_rl.collection.insertion import FinalInput, Insertion
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]
STEPS = 24


class Truncating(gymnasium.Env[Any, Any]):
    """Episodes of 1, 2, ... steps, cut or ended by turns; shows its random numbers."""

    observation_space = spaces.Dict(
        {"a": spaces.Box(-9, 9, (2,)), "b": spaces.MultiDiscrete([3, 4])}
    )
    action_space = spaces.Discrete(3)

    def __init__(self, length: int) -> None:
        self._episode, self._length = 0, length

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._episode += 1
        self._left = 1 + (self._length + self._episode) % 5
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self._left -= 1
        over, cut = self._left == 0, self._episode % 3 != 0
        return self._see(), float(action), over and not cut, over and cut, {}

    def _see(self) -> Any:
        rng = self.np_random
        return {
            "a": rng.normal(size=2).astype(np.float32),
            "b": rng.integers(0, [3, 4]),
        }


def _collected(mode: AutoresetMode, critic: str, steps: int, segment: int) -> dict[str, Any]:
    env = SyncVectorEnv([lambda n=n: Truncating(n) for n in range(4)], autoreset_mode=mode)
    torch.manual_seed(3)
    policy = Policy(
        env.single_observation_space,
        env.single_action_space,
        MemoryConfig(pattern="ms", width=16, num_heads=2),
        PolicyConfig(head_width=16, critic=critic, previous_reward=True),  # type: ignore[arg-type]
        NormalizationConfig(),
    ).double()
    collector = Collector(env, policy, steps, segment, 0, torch.Generator().manual_seed(0))
    rollouts = [collector.collect().data for _ in range(STEPS // steps)]
    keys = ("action", "value", "next_value", "truncated", "terminated", "reset", "valid")
    return {key: torch.cat([rollout[key] for rollout in rollouts], 1) for key in keys}


@pytest.mark.parametrize(("steps", "segment"), [(1, 1), (4, 2), (6, 6), (12, 3), (24, 8)])
@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.each_value
def test_values_do_not_depend_on_where_rollouts_and_segments_are_cut(
    mode: AutoresetMode, critic: str, steps: int, segment: int
) -> None:
    expected = _collected(mode, critic, STEPS, STEPS)
    assert expected["truncated"].sum() > 8 and expected["terminated"].any()
    found = _collected(mode, critic, steps, segment)
    valid = expected["valid"]
    for key, values in expected.items():
        torch.testing.assert_close(found[key][valid], values[valid], rtol=1e-9, atol=1e-9)


def test_insertions_stand_behind_their_step_and_rows_are_filled_up_before_the_reset() -> None:
    truncated = np.zeros((6, 3), dtype=bool)
    truncated[1, 0] = truncated[2, 0] = truncated[5, 2] = True
    finals = [
        FinalInput(1, torch.tensor([0]), torch.tensor([[-1.0]])),
        FinalInput(2, slice(None), torch.tensor([[-2.0], [7.0], [7.0]])),
        FinalInput(5, torch.tensor([2]), torch.tensor([[-3.0]])),
    ]
    insertion = Insertion(finals, truncated, 0, 6, torch.device("cpu"))
    x = torch.arange(18.0).view(3, 6, 1) + 1
    assert insertion.rows.tolist() == [0, 2] and insertion.others.tolist() == [1]
    longer = insertion.insert(x)
    assert isinstance(longer, torch.Tensor)
    assert longer[..., 0].tolist() == [
        [1, 2, -1, 3, -2, 4, 5, 6],
        [13, 14, 15, 16, 17, 18, -3, 0],
    ]
    reset = torch.zeros(3, 6, dtype=torch.bool)
    reset[0, 2] = reset[0, 3] = True
    assert insertion.spread(reset)[0].nonzero().flatten().tolist() == [3, 5]
    assert torch.equal(insertion.steps_of(longer), x[[0, 2]])
    assert insertion.inserted_in(longer)[:, 0].tolist() == [-1, -2, -3]
    assert [axis.tolist() for axis in insertion.at] == [[1, 2, 5], [0, 0, 2]]


def test_the_critics_memory_is_not_stepped_while_acting() -> None:
    env = SyncVectorEnv([lambda: Truncating(1)], autoreset_mode=AutoresetMode.SAME_STEP)
    policy = Policy(
        env.single_observation_space,
        env.single_action_space,
        MemoryConfig(kind="gru", width=16),
        PolicyConfig(critic="separate"),
        NormalizationConfig(),
    )
    network: Any = policy.network
    steps: list[int] = []
    run = network.critic_trunk.memory.step_tensors
    network.critic_trunk.memory.step_tensors = lambda *a, **k: steps.append(1) or run(*a, **k)
    Collector(env, policy, 20, 20, 0, torch.Generator()).collect()
    assert len(steps) == 1  # of the observation behind the last step
