import subprocess
import sys

import gymnasium as gym
import pytest

from xlstm_rl.envs import list_envs
from xlstm_rl.envs.registration import find_spec, register_envs


def test_the_list_has_every_environment_of_ours_with_a_description():
    ids = [line.split(maxsplit=1)[0] for line in list_envs()]
    assert ids == [env_id for env_id in gym.registry if env_id.startswith("xlstm_rl/")]
    assert len(ids) == 10
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in list_envs())


def test_registering_twice_is_silent():
    register_envs()


def test_an_id_can_name_the_package_that_registers_it():
    code = (
        "import gymnasium as gym; env = gym.make('xlstm_rl.envs:xlstm_rl/MemoryChain-v0');"
        "print(env.spec.id)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "xlstm_rl/MemoryChain-v0"


@pytest.mark.parametrize(
    ("env_id", "meant"),
    [
        ("CartPoleNoVel-v1", "xlstm_rl/CartPoleNoVel-v1"),
        ("xlstm_rl/CartPoleNoVel-v7", "xlstm_rl/CartPoleNoVel-v1"),
        ("cartpolenovel", "xlstm_rl/CartPoleNoVel-v1"),
        ("xlstm/memory_chain-v0", "xlstm_rl/MemoryChain-v0"),
        ("cartpole-v1", "CartPole-v1"),
        ("CartPloe-v1", "CartPole-v1"),
        ("xlstm_rl/Pendulum-v1", "Pendulum-v1"),
        ("LunarLander-v2", "LunarLander-v3"),
    ],
)
def test_an_unknown_id_is_answered_with_the_one_that_was_meant(env_id, meant):
    with pytest.raises(ValueError, match=f"env.id='{env_id}': no such .*did you mean .*'{meant}'"):
        find_spec(env_id)


def test_an_id_like_no_other_is_answered_with_where_to_look():
    with pytest.raises(ValueError, match=r"pprint_registry.*module:Name-v0"):
        find_spec("Zyzzyva-v0")


def test_a_module_that_cannot_be_imported_is_named():
    with pytest.raises(ValueError, match="module 'no_such_module' cannot be imported"):
        find_spec("no_such_module:Env-v0")
