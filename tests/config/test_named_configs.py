import pytest

from xlstm_rl.agents import TrainConfig
from xlstm_rl.agents.config import A2CConfig
from xlstm_rl.config import ConfigError, find_config, list_configs, parse_config
from xlstm_rl.envs import make_env, make_vector_env


@pytest.mark.parametrize("name", list_configs())
def test_every_packaged_configuration_is_valid_and_described(name: str) -> None:
    assert list_configs()[name]
    parse_config(TrainConfig, file=find_config(name))


# bsuite's adapter calls what NumPy has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", list_configs())
def test_the_environment_of_every_packaged_configuration_can_be_made(name: str) -> None:
    config = parse_config(TrainConfig, file=find_config(name)).env
    try:
        make_env(config).close()
    except ValueError as error:
        if "pip install" not in str(error):
            raise
        pytest.skip(str(error))
    env = make_vector_env(config)
    assert env.num_envs == config.num_envs
    env.close()


def test_parity_is_learned_by_a_memory_that_tracks_a_state() -> None:
    config = parse_config(TrainConfig, file=find_config("parity"))
    assert "s" in config.memory.block_types


def test_training_without_a_configuration_is_training_cartpole_novel() -> None:
    assert parse_config(TrainConfig, file=find_config("cartpole_novel")) == TrainConfig()
    assert "CartPoleNoVel" in TrainConfig().env.id


def test_memory_chain_remembers_over_32_steps() -> None:
    config = parse_config(TrainConfig, file=find_config("memory_chain"))
    assert config.env.id == "xlstm_rl/MemoryChain-v0"
    assert config.env.kwargs["length"] == 32


def test_a_file_is_found_by_its_path_and_a_misspelt_name_gets_a_hint(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 1")
    assert find_config(str(path)) == path
    with pytest.raises(ConfigError, match=r"carpole_novel: .* did you mean cartpole_novel\?"):
        find_config("carpole_novel")
    with pytest.raises(ConfigError, match="no such file"):
        find_config(str(tmp_path / "other.yaml"))
    with pytest.raises(ConfigError, match="is a folder"):
        find_config(str(tmp_path))


def test_cartpole_novel_a2c_is_the_algorithms_own_defaults() -> None:
    config = parse_config(TrainConfig, file=find_config("cartpole_novel_a2c"))
    assert config.agent == A2CConfig() and config.env == TrainConfig().env
