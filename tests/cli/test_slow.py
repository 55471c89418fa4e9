"""What a slow policy of images is told."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from xlstm_rl import RecurrentPPO
from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.cli.slow import slow_images
from xlstm_rl.config import parse_config


class Camera(gymnasium.Env[Any, Any]):
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, side: int = 8) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 255, (side, side, 3), np.uint8)


def agent(side: int, **policy: Any) -> RecurrentPPO:
    return RecurrentPPO(
        lambda: Camera(side),
        env={"num_envs": 2},
        agent={"minibatches": 1},
        memory={"kind": "gru", "width": 8},
        policy={"critic": "separate", **policy},
        logger={"kind": "none"},
    )


def test_the_line_names_the_cause_and_switches_that_are_options() -> None:
    line = slow_images(agent(8), 35.2)
    assert line is not None
    assert line.startswith("35 steps/s: the image encoder `impala` takes most of the time, and ru")
    assert "nature" not in line  # too small a picture
    for words in (
        ["--policy.share-encoder"],
        ["--policy.critic", "shared"],
        ["--policy.image-encoder", "flat"],
    ):
        assert " ".join(words) in line
        parse_config(TrainConfig, ["--policy.critic", "separate", *words])
    large = slow_images(agent(40, image_encoder="impala"), 35.0)
    assert large is not None and "--policy.image-encoder nature" in large


@pytest.mark.parametrize("policy", [{"critic": "shared"}, {"share_encoder": True}])
def test_what_is_switched_already_is_not_advised(policy: dict[str, Any]) -> None:
    line = slow_images(agent(8, **policy), 100.0)
    assert line is not None and "runs twice" not in line and "critic" not in line


def test_fast_runs_and_other_policies_are_left_alone() -> None:
    assert slow_images(agent(8), 301.0) is None
    assert slow_images(agent(8, image_encoder="flat"), 35.0) is None
    vector = RecurrentPPO("CartPole-v1", logger={"kind": "none"}, memory={"kind": "gru"})
    assert slow_images(vector, 35.0) is None
    assert slow_images(object(), 35.0) is None
