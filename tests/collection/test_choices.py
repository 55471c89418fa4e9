"""Choices on tensors that are not in their space: named, or stopped on the device."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from xlstm_rl import MemoryConfig
from xlstm_rl.collection.collector import Collector
from xlstm_rl.errors import EnvError
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig


def collector(env: Any) -> Collector:
    policy = Policy(
        env.single_observation_space,
        env.single_action_space,
        MemoryConfig(width=16, num_heads=2),
        PolicyConfig(head_width=16),
        NormalizationConfig(),
    )
    return Collector(env, policy, 14, 7, 5, torch.Generator().manual_seed(0))


class Answers(VectorEnv[Any, Any, Any]):
    """Three episodes of any space; at step 4 environment 1 observes what a test says."""

    tensors, num_envs, may_truncate = True, 3, True
    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, space: Any, fine: Any, bad: Any, at: str = "obs") -> None:
        self.single_observation_space, self.observation_space = space, batch_space(space, 3)
        self.single_action_space = spaces.Discrete(2)
        self.action_space = batch_space(self.single_action_space, 3)
        self.fine, self.at, self.t = torch.tensor(fine), at, 0
        self.bad = self.fine.clone().to(torch.tensor(bad).dtype)
        self.bad[1] = torch.tensor(bad)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return (self.bad if self.at == "reset" else self.fine), {}

    def step(self, actions: Any) -> Any:
        self.t += 1
        bad = self.t == 4
        ended = torch.full((3,), bad and self.at == "final_obs")
        if self.at == "running final_obs":
            ended[2] = bad
        observation = self.bad if bad and self.at == "obs" else self.fine
        final = self.bad if bad and self.at.endswith("final_obs") else self.fine
        return observation, torch.zeros(3), ended & False, ended, {"final_obs": final}


OUTSIDE: list[tuple[Any, Any, Any]] = [
    (spaces.Discrete(3), [0, 1, 2], 3),
    (spaces.Discrete(3, start=1), [3, 1, 2], 0),
    (spaces.Discrete(3), [0, 1, 2], -1),
    (spaces.MultiDiscrete([2, 3]), [[1, 0], [0, 2], [1, 1]], [2, 0]),
    (spaces.MultiDiscrete([2, 3], start=[0, 4]), [[1, 4], [0, 5], [1, 6]], [1, 0]),
    (spaces.MultiBinary(2), [[1, 0], [0, 0], [1, 1]], [2, 0]),
    (spaces.MultiBinary(2), [[1, 0], [0, 0], [1, 1]], [0.5, 0.0]),
    (spaces.MultiBinary(2), [[1, 0], [0, 0], [1, 1]], [torch.nan, 0.0]),
]


@pytest.mark.parametrize("at", ["reset", "obs", "final_obs"])
@pytest.mark.parametrize(("space", "fine", "bad"), OUTSIDE)
def test_choices_outside_of_their_space_are_refused(
    space: Any, fine: Any, bad: Any, at: str
) -> None:
    step = 0 if at == "reset" else 9
    message = (
        rf"step {step}: environment 1: the observation is .*, its space is {type(space).__name__}"
    )
    with pytest.raises(EnvError, match=message):
        collector(Answers(space, fine, bad, at)).collect()


@pytest.mark.parametrize(("space", "fine", "bad"), OUTSIDE)
def test_on_a_gpu_the_device_finds_them(
    looking_is_an_error: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    space: Any,
    fine: Any,
    bad: Any,
) -> None:
    collects = collector(Answers(space, fine, bad))
    step = collects._step

    def watched(*args: Any) -> None:
        with looking_is_an_error():
            step(*args)

    monkeypatch.setattr(collects, "_step", watched)
    monkeypatch.setattr(
        torch.compiler, "is_compiling", lambda: True
    )  # the look of a CPU is left out
    with pytest.raises(RuntimeError, match="the observation of an environment is not in its space"):
        collects.collect()


def test_choices_in_final_observations_of_running_episodes_do_not_matter() -> None:
    collector(Answers(*OUTSIDE[0], "running final_obs")).collect()
