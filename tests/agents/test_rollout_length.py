"""`agent.rollout_steps: auto`: whole episodes, where they are known, short and many enough."""

from pathlib import Path
from typing import Any

import pytest

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents import TrainConfig
from xlstm_rl.agents.rollout_length import choose_rollout_steps
from xlstm_rl.config import ConfigError, load_yaml, parse_config


@pytest.mark.parametrize(
    ("episode", "limit", "total", "steps"),
    [
        (None, None, 10**9, 64),  # nothing is known
        (16, None, 1, 64),  # four whole episodes
        (33, None, 1, 66),
        (52, None, 1, 52),
        (65, None, 100_000, 65),
        (101, None, 500_000, 101),
        (1001, None, 500_000, 1001),
        (1001, None, 480_000, 64),  # fewer than 30 rollouts of 16 x 1001
        (1025, None, 10**9, 256),  # too long: a part of it
        (None, 200, 100_000, 200),
        (None, 200, 95_000, 64),
        (None, 500, 10**9, 256),  # a limit far off says little
        (None, 500, 819_200, 256),  # 200 rollouts of 16 x 256
        (None, 500, 819_199, 128),
        (None, 500, 409_599, 64),
        (None, 50, 100_000, 64),  # whole episodes fit anyway
        (33, 20, 1, 66),
    ],
)
def test_a_rollout_covers_whole_episodes(
    episode: int | None, limit: int | None, total: int, steps: int
) -> None:
    assert choose_rollout_steps(64, 256, 16, total, episode, limit) == steps
    assert choose_rollout_steps(32, 32, 16, 10**9, None, 500) == 32  # A2C


@pytest.mark.parametrize(
    ("env", "options", "steps"),
    [
        ("xlstm_rl/CartPoleNoVel-v1", {}, 64),
        ("xlstm_rl/PendulumNoVel-v1", {}, 200),
        ("xlstm_rl/MemoryChain-v0", {"kwargs": {"length": 64}}, 65),
        ("xlstm_rl/TMaze-v0", {"kwargs": {"length": 100}, "num_envs": 4}, 101),
        ("CartPole-v1", {"max_episode_steps": 150, "num_envs": 4}, 150),
    ],
)
def test_what_an_environment_says_of_its_episodes_is_read(
    env: str, options: dict[str, Any], steps: int
) -> None:
    with RecurrentPPO(env, env=options, logger="none") as agent:
        assert agent.config.agent.rollout_steps == agent.algorithm.rollout_steps == steps


def test_a2c_has_a_usual_length_of_its_own_and_a_given_number_stays() -> None:
    with RecurrentA2C("CartPole-v1", logger="none") as agent:
        assert agent.algorithm.rollout_steps == 32
    with RecurrentPPO("Pendulum-v1", agent={"rollout_steps": 8}, logger="none") as agent:
        assert agent.algorithm.rollout_steps == 8


def test_the_run_folder_holds_the_number_and_a_resumed_run_keeps_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = {"epochs": 1, "minibatches": 1}
    env = {"num_envs": 2, "kwargs": {"length": 9}}
    with RecurrentPPO("xlstm_rl/MemoryChain-v0", env=env, agent=small, run_dir=str(run)) as agent:
        agent.learn(120)
    assert load_yaml(run / "config.yaml")["agent"]["rollout_steps"] == 60
    with RecurrentPPO.load(run, total_steps=10_000_000) as agent:
        assert agent.algorithm.rollout_steps == 60


def test_segments_need_a_number() -> None:
    with pytest.raises(ConfigError, match="rollout_steps=auto, whose length is not known"):
        parse_config(TrainConfig, ["--agent.segment-steps", "8"])
    with pytest.raises(ConfigError, match=r"expected an integer or auto, got 'atuo'; did you mean"):
        parse_config(TrainConfig, ["--agent.rollout-steps", "atuo"])
    with pytest.raises(ConfigError, match="expected an integer >= 1"):
        parse_config(TrainConfig, ["--agent.rollout-steps", "0"])
