"""Environments of other packages: each configuration trains, is saved, loaded and evaluated."""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentPPO, evaluate, load_policy
from xlstm_rl.agents import TrainConfig
from xlstm_rl.config import find_config, list_configs, parse_config
from xlstm_rl.envs import EnvConfig, autoreset_mode, make_env, make_vector_env
from xlstm_rl.envs.extras import EXTRAS

ROOT = Path(__file__).parents[1]
CONFIGS = {
    "atari_pong": ("atari", ("ale_py", "cv2")),
    "bsuite_memory_size": ("bsuite", ("bsuite", "shimmy")),
    "envpool_cartpole": ("envpool", ("envpool",)),
    "halfcheetah_novel": ("mujoco", ("mujoco",)),
    "lunar_lander_novel": ("box2d", ("Box2D",)),
    "minigrid_memory": ("minigrid", ("minigrid",)),
    "popgym_repeat_previous_easy": ("popgym", ("popgym",)),
}
# What these packages themselves do on import or in use, in Python 3.11 to 3.13.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
]


def _need(extra: str) -> None:
    for wanted, modules in CONFIGS.values():
        if wanted == extra:
            for module in modules:
                pytest.importorskip(module, reason=f"needs the extra {extra}: {module} is missing")


def _config(name: str) -> TrainConfig:
    return parse_config(TrainConfig, file=find_config(name))


@pytest.mark.parametrize("name", CONFIGS)
def test_two_updates_then_the_saved_policy_acts_as_it_was_trained(
    name: str, tmp_path: Path
) -> None:
    _need(CONFIGS[name][0])
    config = _config(name)
    agent = RecurrentPPO(
        env=replace(config.env, num_envs=2, max_episode_steps=20),
        normalization=config.normalization,
        memory={"pattern": "ms", "width": 16, "num_heads": 2},
        policy=replace(config.policy, head_width=16),
        agent=replace(config.agent, rollout_steps=24, epochs=1, minibatches=1),
        logger={"kind": "none"},
    )
    agent.learn(2 * 2 * 24)
    assert agent.steps_done == 2 * 2 * 24
    assert agent._collector is not None
    rollout = agent._collector.collect()
    data, network = rollout.data, agent.policy.network
    assert rollout.data["reset"][:, 1:].any()  # episodes end inside the rollout
    with torch.no_grad():
        params, _, _ = network(data["observation"], rollout.segment_states[0], data["reset"])
        log_prob, _ = network.distribution.log_prob_and_entropy(params, data["action"])
    valid = data["valid"]
    torch.testing.assert_close(log_prob[valid], data["log_prob"][valid], rtol=0, atol=1e-5)

    loaded = load_policy(agent.save(tmp_path / "run"))
    result = evaluate(loaded, episodes=2, seed=4)
    assert result == evaluate(agent.policy, episodes=2, seed=4)
    assert all(0 < length <= 20 for length in result.lengths)
    agent.close()


def test_popgyms_easy_repeat_previous_is_the_task_of_ours_with_k_3() -> None:
    _need("popgym")
    env = make_env(_config("popgym_repeat_previous_easy").env)
    cards = [env.reset(seed=3)[0]]
    total, done = 0.0, False
    while not done:
        observation, reward, done, _, _ = env.step(cards[-4] if len(cards) > 3 else 0)
        cards.append(observation)
        total += float(reward)
    assert total == pytest.approx(1.0)
    assert len(cards) == 52


def test_minigrid_shows_objects_as_choices() -> None:
    _need("minigrid")
    env = make_env(_config("minigrid_memory").env)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    image = env.unwrapped.gen_obs()["image"]  # type: ignore[attr-defined]
    assert (observation.reshape(7, 7, 3) == image).all()


def test_pong_is_one_grey_frame_at_a_time() -> None:
    _need("atari")
    env = make_env(_config("atari_pong").env)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (84, 84), np.uint8)
    env.reset(seed=0)
    before = env.unwrapped.ale.getFrameNumber()  # type: ignore[attr-defined]
    env.step(0)
    assert env.unwrapped.ale.getFrameNumber() - before == 4  # type: ignore[attr-defined]


def test_halfcheetah_shows_no_speed() -> None:
    _need("mujoco")
    env = make_env(_config("halfcheetah_novel").env)
    observation, _ = env.reset(seed=0)
    observation, *_ = env.step(np.full(6, 0.5, np.float32))
    physics = env.unwrapped.data  # type: ignore[attr-defined]
    # Positions but for the distance run, which the task itself hides.
    np.testing.assert_allclose(observation, physics.qpos[1:])


def test_bsuites_memory_size_pays_the_right_bit() -> None:
    _need("bsuite")
    env = make_env(_config("bsuite_memory_size").env)
    for seed in range(6):
        first, _ = env.reset(seed=seed)
        second, _, done, _, _ = env.step(0)
        while not done:
            asked = int(second[0, 1])
            answer = int(first[0, 2 + asked] > 0)
            last = second
            second, reward, done, _, _ = env.step(answer)
        assert reward == 1, (first, last)


def test_envpool_restarts_in_the_step_after_the_end_as_it_says() -> None:
    _need("envpool")
    envs = make_vector_env(EnvConfig("CartPole-v1", 3, "envpool", max_episode_steps=5))
    assert autoreset_mode(envs) is gymnasium.vector.AutoresetMode.NEXT_STEP
    first, _ = envs.reset(seed=7)
    assert first.shape == (3, 4)
    assert envs.observation_space.shape == (3, 4)
    actions = np.array([0, 1, 0])
    for _ in range(5):
        last, _, terminated, truncated, _ = envs.step(actions)
        if truncated.any():
            break
    assert truncated.all() and not terminated.any()
    again, rewards, terminated, truncated, _ = envs.step(actions)
    assert (rewards == 0).all() and not (terminated | truncated).any()
    assert (np.abs(again) <= 0.05).all() and (np.abs(last) > 0.05).any()
    np.testing.assert_array_equal(envs.reset(seed=7)[0], first)
    assert (envs.reset()[0] != first).any()
    envs.close()


def test_one_environment_of_envpool_steps_as_gymnasiums_own_does() -> None:
    _need("envpool")
    ours, theirs = make_env(EnvConfig("CartPole-v1", 1, "envpool")), gymnasium.make("CartPole-v1")
    observation, _ = ours.reset(seed=0)
    theirs.reset(seed=0)
    theirs.unwrapped.state = observation.astype(np.float64)  # type: ignore[attr-defined]
    for action in (0, 1, 1, 1, 0):
        got, expected = ours.step(action), theirs.step(action)
        np.testing.assert_allclose(got[0], expected[0], atol=1e-5)
        assert got[1:4] == expected[1:4]
    ours.close()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EnvConfig("NoSuch-v9", 1, "envpool"), "EnvPool has no such environment"),
        (EnvConfig("CartPole-v1", 1, "envpool", kwargs={"foo": 1}), "cannot make .*foo"),
    ],
)
def test_what_envpool_cannot_make_is_told(config: EnvConfig, message: str) -> None:
    _need("envpool")
    with pytest.raises(ValueError, match=message):
        make_env(config)
    with pytest.raises(ValueError, match=message):
        make_vector_env(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"wrappers": {"Delay": {"steps": 1}}}, "env.wrappers=.*envpool"),
        ({"on_error": "restart"}, "env.on_error='restart' does not go"),
        ({"autoreset": "same_step"}, "env.autoreset='same_step' does not go"),
    ],
)
def test_what_does_not_go_with_envpool_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvConfig("CartPole-v1", vectorization="envpool", **fields)


def _hide(monkeypatch: pytest.MonkeyPatch, modules: tuple[str, ...]) -> None:
    """Make `modules` as good as not installed, and forget what was imported with them."""
    for name in list(sys.modules):
        root = name.partition(".")[0]
        if root in modules or name.startswith("gymnasium.envs.mujoco."):
            monkeypatch.delitem(sys.modules, name)
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_missing_package_is_answered_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra, modules = CONFIGS[name]
    if extra == "box2d":
        pytest.skip("LunarLander is imported once, with or without Box2D")
    _hide(monkeypatch, modules)
    with pytest.raises(ValueError, match=re.escape(f'pip install "xlstm_rl[{extra}]"')):
        make_env(_config(name).env)


def test_every_extra_that_an_error_names_can_be_installed() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(EXTRAS.values()) <= set(extras)


def test_the_documentation_has_every_configuration_and_extra() -> None:
    text = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE))
    assert rows == {name: extra for name, (extra, _) in CONFIGS.items()}
    assert set(CONFIGS) <= set(list_configs())


def test_the_package_that_registers_an_id_is_imported_for_it() -> None:
    _need("popgym")
    assert importlib.import_module("popgym")
    config = EnvConfig("popgym:popgym-RepeatFirstEasy-v0", 2, "sync")
    envs = make_vector_env(config)
    assert envs.reset(seed=0)[0].shape == (2,)
    envs.close()
