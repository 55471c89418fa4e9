"""An option that nothing will read is refused instead of ignored."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from xlstm_rl import RecurrentA2C, load_policy
from xlstm_rl.agents import TrainConfig
from xlstm_rl.cli import main
from xlstm_rl.config import ConfigError, config_to_dict, parse_config
from xlstm_rl.envs import EnvConfig
from xlstm_rl.memory.config import MEMORIES, XLSTMConfig
from xlstm_rl.memory.stack import XLSTMStack
from xlstm_rl.options.fields import own_fields

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
    "policy.head_width": (
        ["--policy.head-layers", "0", "--policy.head-width", "32"],
        "policy.head_layers is 0",
    ),
    "policy.activation": (
        [
            "--policy.head-layers",
            "0",
            "--policy.encoder-layers",
            "0",
            "--policy.activation",
            "relu",
        ],
        "policy.encoder_layers and policy.head_layers are 0",
    ),
    "agent.gae_lambda": (
        ["--agent.algo", "a2c", "--agent.advantages", "n_step", "--agent.gae-lambda", "0.5"],
        "agent.advantages is n_step",
    ),
    "memory.slstm_num_heads": (["--memory.slstm-num-heads", "2"], "memory.pattern=m has none"),
    "memory.chunk_size": (
        ["--memory.pattern", "sm", "--memory.num-blocks", "1", "--memory.chunk-size", "32"],
        "memory.pattern=sm cut to memory.num_blocks=1 has none",
    ),
}
OF_THE_SPACES = {
    "policy.image_encoder": (
        ["--policy.image-encoder", "impala"],
        "images, but the observation has none",
    ),
    "policy.image_layout": (
        ["--policy.image-layout", "chw"],
        "images, but the observation has none",
    ),
    "normalization.clip_observation": (
        ["--env.id", "xlstm_rl/Parity-v0", "--normalization.clip-observation", "5"],
        "observations of numbers, but the observation has none",
    ),
}


@pytest.mark.parametrize("name", PARSED)
def test_an_option_of_what_is_switched_off_is_refused(name: str) -> None:
    words, why = PARSED[name]
    with pytest.raises(ConfigError, match=rf"^{name}=.*: an option of .*{why} \(from --"):
        parse_config(TrainConfig, words)


@pytest.mark.parametrize("name", OF_THE_SPACES)
def test_an_option_of_other_spaces_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, why = OF_THE_SPACES[name]
    run = tmp_path / "run"
    assert main(["train", *words, "--run-dir", str(run)]) == 2
    output = " ".join(capsys.readouterr().err.split())
    assert f"{name}=" in output and f"an option of {why}" in output
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


CHANGED: dict[str, Any] = {
    "num_heads": 2,
    "conv1d_kernel_size": 2,
    "proj_factor": 1.0,
    "qkv_block_size": 2,
    "feedforward_proj_factor": 2.0,
    "feedforward_activation": "relu",
    "round_to": 32,
    "forget_gate": "exponential",
    "input_gate": "sigmoid",
    "normalizer": False,
    "final_norm": False,
    "bias": True,
    "feedforward_bias": True,
    "slstm_num_heads": 2,
    "slstm_conv1d_kernel_size": 2,
    "chunk_size": 32,
    "backend": "reference",
}
STACKS: list[dict[str, Any]] = [
    {"pattern": "m"},
    {"pattern": "s"},
    {"pattern": "ms"},
    {"pattern": "ms", "num_blocks": 1},
    {"pattern": "sm", "num_blocks": 1},
    {"pattern": "s", "slstm_num_heads": 8},
    {"pattern": "s", "slstm_conv1d_kernel_size": 3},
    {"pattern": "s", "feedforward_proj_factor": 0.0},
    {"pattern": "ms", "feedforward_proj_factor": 0.0},
]

WITHOUT_EFFECT = {  # read, and then replaced, or used to round 0
    "{'pattern': 's', 'slstm_conv1d_kernel_size': 3}": {"conv1d_kernel_size"},
    "{'pattern': 's', 'feedforward_proj_factor': 0.0}": {"round_to", "feedforward_activation"},
    "{'pattern': 'ms', 'feedforward_proj_factor': 0.0}": {"feedforward_activation"},
}


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_a_stack_refuses_exactly_the_options_that_nothing_in_it_reads(
    stack: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    config = XLSTMConfig(**stack)
    own = XLSTMConfig.__getattribute__

    def reading(self: XLSTMConfig, name: str) -> Any:
        read.add(name)
        return own(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(XLSTMConfig, "__getattribute__", reading)
        XLSTMStack(config)
    read -= WITHOUT_EFFECT.get(str(stack), set())
    others = (
        own_fields(XLSTMConfig).keys() - {"kind", "width", "pattern", "num_blocks"} - stack.keys()
    )
    for name in others:
        if name in read:
            XLSTMConfig(**stack, **{name: CHANGED[name]})
            continue
        with pytest.raises(ValueError, match=rf"^memory\.{name}=.*: an option of .*, but memory\."):
            XLSTMConfig(**stack, **{name: CHANGED[name]})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"autoreset": "next_step"}, r"env\.autoreset='next_step' comes too late"),
        ({"vectorization": "async"}, r"env\.vectorization='async' comes too late"),
        ({"on_error": "restart"}, r"env\.on_error='restart' comes too late"),
        ({"num_envs": 8}, r"env\.num_envs=8: the vector environment has 2"),
        ({"id": "CartPole-v1"}, r"env\.id='CartPole-v1': an environment is passed as well"),
    ],
)
@pytest.mark.parametrize("form", [dict, lambda section: EnvConfig(**section)])
def test_an_option_of_making_a_vector_is_refused_where_one_is_given(
    section: dict[str, Any], message: str, form: Any
) -> None:
    ready = gymnasium.vector.SyncVectorEnv([Seen, Seen], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match=message):
        RecurrentA2C(ready, env=form(section))


@pytest.mark.parametrize("environment", [Seen, "Acrobot-v1"])
def test_an_id_beside_another_environment_is_refused(environment: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"env\.id='CartPole-v1': an environment is passed as well"
    ):
        RecurrentA2C(environment, env={"id": "CartPole-v1", "num_envs": 2})
    assert RecurrentA2C("CartPole-v1", env={"id": "CartPole-v1"}).config.env.id == "CartPole-v1"


def test_checkpoints_that_have_no_folder_are_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"logger": {"kind": "none"}, "agent": {"rollout_steps": 8}}
    agent = RecurrentA2C(**options, checkpoint={"every_steps": 64})
    with pytest.raises(ConfigError, match=r"checkpoint\.every_steps=64: .* run_dir") as caught:
        agent.learn(128)
    assert "\n" not in str(caught.value)
    RecurrentA2C(**options, checkpoint={"every_steps": 0}).learn(128)
    folder = tmp_path / "run"
    RecurrentA2C(**options, checkpoint={"every_steps": 64}, run_dir=str(folder)).learn(128)
    assert folder.exists()


def test_a_policy_that_was_saved_with_an_option_that_nothing_reads_is_loaded(
    tmp_path: Path,
) -> None:
    run = RecurrentA2C(
        memory={"pattern": "m", "width": 16},
        policy={"head_layers": 0},
        normalization={"observation": False},
    ).save(tmp_path / "run")
    path = run / "checkpoints" / "0" / "policy.yaml"
    found = yaml.safe_load(path.read_text())
    found["memory"]["slstm_num_heads"] = 2
    found["policy"]["head_width"] = 32
    found["policy"]["image_encoder"] = "impala"
    found["normalization"]["clip_observation"] = 5.0
    path.write_text(yaml.safe_dump(found))
    load_policy(run).act(np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("kind", list(MEMORIES.classes))
@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_what_is_saved_whole_is_read_back(kind: str, algo: str) -> None:
    config = parse_config(TrainConfig, ["--memory.kind", kind, "--agent.algo", algo])
    assert parse_config(TrainConfig, [], config_to_dict(config)) == config
