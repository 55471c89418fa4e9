"""Names of other libraries lead to the options here, wherever they are written."""

from typing import Any

import pytest

from xlstm_rl.agents.config import PPOConfig, TrainConfig
from xlstm_rl.cli.eval import EvalOptions
from xlstm_rl.cli.plot import PlotOptions
from xlstm_rl.cli.train import TrainOptions
from xlstm_rl.config import ConfigError, config_from_dict, parse_config
from xlstm_rl.config.settings import all_paths
from xlstm_rl.options.foreign import _NOTES, FOREIGN_NAMES, suggest

COMMANDS = [
    {path for with_flags in (True, False) for path in all_paths(cls, with_flags=with_flags)}
    for cls in (TrainOptions, EvalOptions, PlotOptions)
]


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_every_target_is_an_option_where_no_option_has_the_name(name: str) -> None:
    commands = [options for options in COMMANDS if FOREIGN_NAMES[name] in options]
    assert commands and name == name.lower()
    for options in commands:
        assert name not in {path.rpartition(".")[2] for path in options}


def test_every_note_is_about_a_name_of_the_table() -> None:
    assert _NOTES.keys() <= FOREIGN_NAMES.keys()


SAME = {
    "n_steps": "agent.rollout_steps",
    "n_epochs": "agent.epochs",
    "ent_coef": "agent.entropy_coef",
    "vf_coef": "agent.value_coef",
    "lr": "agent.learning_rate",
    "batch_size": "agent.minibatches (their number)",
    "lstm_hidden_size": "memory.width",
    "clip_range": "agent.clip",
    "n_envs": "env.num_envs",
    "total_timesteps": "total_steps",
    "num_sgd_iter": "agent.epochs",
    "update_epochs": "agent.epochs",
    "clip_coef": "agent.clip",
    "num_steps": "agent.rollout_steps",
    "norm_obs": "normalization.observation",
}
"""As stable-baselines3, CleanRL and RLlib call them."""

ELSEWHERE = {
    "gae_lambda": "agent.gae_lambda",
    "num_envs": "env.num_envs",
    "target_kl": "agent.target_kl",
    "max_grad_norm": "agent.max_grad_norm",
}
"""Named the same here, in another place."""


@pytest.mark.parametrize("name", [*SAME, *ELSEWHERE])
@pytest.mark.parametrize("section", ["", "agent.", "policy.", "ppo."])
def test_flags_files_and_python_lead_to_the_option(name: str, section: str) -> None:
    target = (SAME | ELSEWHERE)[name]
    if section + name == target:
        return
    option, blank, note = target.partition(" ")
    flag = f"--{option.replace('_', '-')}{blank}{note}"
    for written in (name, name.replace("_", "-"), name.upper()):
        with pytest.raises(ConfigError) as refused:
            parse_config(TrainConfig, [f"--{section}{written}", "3"])
        assert str(refused.value).endswith(f"no such option; did you mean {flag}?")
    for outer in {"", section.rstrip(".")} - {"ppo"}:
        mapping: dict[str, Any] = {outer: {name: 3}} if outer else {name: 3}
        with pytest.raises(ConfigError) as refused:
            config_from_dict(TrainConfig, mapping)
        if outer + "." + name != option and name != option:
            assert str(refused.value).endswith(f"no such key; did you mean {target}?")


def test_config_objects_lead_to_their_own_option() -> None:
    with pytest.raises(ValueError, match=r"agent.n_steps: no such option; did you mean rollout_s"):
        PPOConfig(n_steps=3)  # type: ignore[call-arg]


def test_an_option_of_another_command_is_not_suggested() -> None:
    with pytest.raises(ConfigError, match="did you mean --episodes"):
        parse_config(EvalOptions, ["run", "--n-eval-episodes", "3"])
    with pytest.raises(ConfigError, match=r"did you mean --stochastic .the opposite."):
        parse_config(EvalOptions, ["run", "--deterministic"])
    with pytest.raises(ConfigError) as refused:
        parse_config(EvalOptions, ["run", "--n-steps", "3"])
    assert "rollout" not in str(refused.value)


def test_a_name_that_is_misspelt_is_still_found() -> None:
    assert suggest("agent.epoch", ["agent.epochs", "seed"]) == "; did you mean agent.epochs?"
    assert suggest("dance", ["agent.epochs", "seed"]) == ""
