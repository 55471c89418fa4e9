"""An option that nothing will read is refused instead of ignored."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from xlstm_rl import RecurrentA2C
from xlstm_rl.agents import TrainConfig
from xlstm_rl.cli import main
from xlstm_rl.config import ConfigError, config_to_dict, parse_config
from xlstm_rl.memory.config import MEMORIES

PARSED = {
    "agent.rho_bar": (["--agent.algo", "a2c", "--agent.rho-bar", "2"], "advantages is gae"),
    "agent.c_bar": (["--agent.algo", "a2c", "--agent.c-bar", "2"], "advantages is gae"),
    "agent.rmsprop_alpha": (
        ["--agent.algo", "a2c", "--agent.rmsprop-alpha", "0.5"],
        "optimizer is adam",
    ),
    "normalization.clip_reward": (
        ["--normalization.no-reward", "--normalization.clip-reward", "5"],
        "reward is false",
    ),
    "normalization.clip_observation": (
        ["--normalization.no-observation", "--normalization.clip-observation", "5"],
        "observation is false",
    ),
    "policy.action_mask_key": (["--policy.action-mask-key", "mask"], "action_mask is none"),
}
IMAGE = {
    "policy.image_encoder": ["--policy.image-encoder", "impala"],
    "policy.image_layout": ["--policy.image-layout", "chw"],
}


@pytest.mark.parametrize("name", PARSED)
def test_an_option_of_what_is_switched_off_is_refused(name: str) -> None:
    words, why = PARSED[name]
    with pytest.raises(ConfigError, match=rf"^{name}=.*: an option of .*{why} \(from --"):
        parse_config(TrainConfig, words)


@pytest.mark.parametrize("name", IMAGE)
def test_an_option_of_images_is_refused_where_there_are_none(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *IMAGE[name], "--run-dir", str(run)]) == 2
    output = capsys.readouterr().err
    assert f"{name}=" in output and "images, but the observation has none" in output
    assert not run.exists()


class Seen(gymnasium.Env[Any, Any]):
    observation_space = spaces.Dict(
        eye=spaces.Box(0, 255, (40, 36, 3), np.uint8), place=spaces.Box(-1, 1, (2,))
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 0.0, False, False, {}


def test_it_is_taken_where_one_part_of_the_observation_is_an_image() -> None:
    policy = {"image_encoder": "impala", "image_layout": "hwc"}
    RecurrentA2C(Seen, env={"num_envs": 2}, policy=policy, memory={"width": 8, "num_heads": 2})


@pytest.mark.parametrize("kind", list(MEMORIES.classes))
@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_what_is_saved_whole_is_read_back(kind: str, algo: str) -> None:
    config = parse_config(TrainConfig, ["--memory.kind", kind, "--agent.algo", algo])
    assert parse_config(TrainConfig, [], config_to_dict(config)) == config
