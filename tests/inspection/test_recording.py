"""Recorded episodes are those of an evaluation, with pictures where there can be any."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from xlstm_rl import evaluate
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.inspection.recording import record
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

from .policies import made_for, remembers_the_cue

BOX = spaces.Box(-np.inf, np.inf, (2,), np.float32)


def _policy(observation: Any, action: Any, **options: Any) -> Policy:
    memory = MemoryConfig(kind="gru", width=8)
    return Policy(observation, action, memory, PolicyConfig(**options), NormalizationConfig())


class _Endless(gymnasium.Env[Any, Any]):
    """Never ends; how it draws is told."""

    observation_space, action_space = BOX, spaces.Discrete(2)
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, drawing: Any = None) -> None:
        self.render_mode, self.drawing, self.is_closed = render_mode, drawing, False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.seen = np.zeros(2, np.float32)
        return self.seen, {}

    def step(self, action: Any) -> Any:
        self.seen += 1.0  # the same memory at every step
        return self.seen, 1.0, False, False, {}

    def render(self) -> Any:
        if isinstance(self.drawing, Exception):
            raise self.drawing
        return self.drawing

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("deterministic", [True, False])
def test_episodes_are_those_of_an_evaluation(deterministic: bool) -> None:
    policy = made_for("TMaze", {"pattern": "m", "width": 16, "num_heads": 2}, length=5)
    found, problem = record(policy, None, 3, 7, deterministic)
    env = EnvConfig("xlstm_rl/TMaze-v0", kwargs={"length": 5}, vectorization="sync")
    known = evaluate(policy, env, 3, 7, deterministic)
    assert problem is None and [one.number for one in found] == [0, 1, 2]
    assert [one.length for one in found] == known.lengths
    assert [sum(one.rewards) for one in found] == pytest.approx(known.returns)


def test_there_is_a_picture_of_every_observation() -> None:
    (episode,), _ = record(remembers_the_cue(4))
    assert len(episode.frames) == len(episode.observations) == episode.length + 1 == 6
    assert episode.frames[0].shape == (256, 256, 3) and episode.frames[0].dtype == np.uint8
    assert (episode.frames[0] != episode.frames[-1]).any()
    (without,), problem = record(remembers_the_cue(4), frames=False)
    assert without.frames == [] and problem is None and episode.terminated


def test_an_episode_that_never_ends_is_cut() -> None:
    (episode,), _ = record(_policy(BOX, spaces.Discrete(2)), _Endless, max_steps=12, frames=False)
    assert episode.length == 12 and not episode.terminated
    assert [one.tolist() for one in episode.observations[:3]] == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize(
    ("drawing", "said"),
    [
        (RuntimeError("no display"), "no display"),
        (np.zeros((4, 4), np.uint8), "expected [height, width, 3]"),
        (None, "expected [height, width, 3]"),
    ],
)
def test_what_cannot_be_drawn_is_played_without_pictures(drawing: Any, said: str) -> None:
    def make(render_mode: str | None = None) -> Any:
        return _Endless(render_mode, drawing)

    (episode,), problem = record(_policy(BOX, spaces.Discrete(2)), make, max_steps=3)
    assert episode.length == 3 and episode.frames == []
    assert problem is not None and said in problem and "\n" not in problem


def test_an_environment_without_that_render_mode_is_played_without_pictures(
    any_spaces: Any,
) -> None:
    env = any_spaces(BOX, spaces.Discrete(2))
    (episode,), problem = record(_policy(BOX, spaces.Discrete(2)), env)
    assert episode.frames == [] and problem is not None and "render_mode" in problem
    (episode,), problem = record(_policy(BOX, spaces.Discrete(2)), lambda: env)
    assert episode.frames == [] and problem is not None and "render_mode" in problem


def test_a_ready_environment_stays_open_and_another_is_closed() -> None:
    made: list[_Endless] = []

    def make() -> Any:
        made.append(_Endless())
        return made[-1]

    policy = _policy(BOX, spaces.Discrete(2))
    ready = _Endless()
    for env in (ready, make):
        record(policy, env, max_steps=2, frames=False)
    assert not ready.is_closed and all(one.is_closed for one in made)


@pytest.mark.parametrize("mask_in", ["info", "observation"])
def test_a_policy_reads_the_masks_that_it_acted_with(mask_in: str, any_spaces: Any) -> None:
    action = spaces.Discrete(4)
    observation = BOX
    if mask_in == "observation":
        observation = spaces.Dict({"a": BOX, "action_mask": spaces.MultiBinary(4)})
    policy = _policy(observation, action, action_mask=mask_in, previous_reward=True)
    env = any_spaces(observation, action, mask_in)
    episodes, _ = record(policy, env, 3, deterministic=False, frames=False)
    for episode in episodes:
        read = episode.read_by(policy)
        params, _, _ = policy.network(read.observation, read.tensors, None)
        log_prob, _ = policy.network.distribution.log_prob_and_entropy(params, read.action)
        assert (log_prob > -20).all()  # of a forbidden action it is -1e30
        assert isinstance(read.observation, dict)
        rewards = read.observation["~previous_reward"][0, :, 0].tolist()
        scale = float(policy.auxiliary.scale)
        assert rewards == pytest.approx([0.0, *(scale * one for one in episode.rewards[:-1])])
