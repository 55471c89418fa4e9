"""What an environment says of itself decides what is `auto`: previous actions, rollouts' length."""

import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents import TrainConfig
from xlstm_rl.agents.algorithm_config import PPOConfig
from xlstm_rl.agents.automatic import ENTROPY_COEF, TARGET_KL
from xlstm_rl.agents.base_config import AlgorithmConfig
from xlstm_rl.comparing.sizes import PolicySizes
from xlstm_rl.config import ConfigError, load_yaml, parse_config
from xlstm_rl.envs import make_vector_env
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.declared import declared_limit, wants_previous_action
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization_config import NormalizationConfig
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.policy import Policy

BOX = spaces.Box(-1, 1, (2,), np.float32)


class Plain(gymnasium.Env[Any, Any]):
    """Eight steps, in which nothing pays."""

    observation_space, action_space = BOX, spaces.Discrete(3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.steps = render_mode, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.zeros(2, np.float32), 0.0, self.steps == 8, False, {}


class Asks(Plain):
    obs_requires_prev_action = True


class Denies(Plain):
    obs_requires_prev_action = False


class Limited(Plain):
    """A game whose limit no registry knows."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.max_episode_length = 100


class OtherName(Plain):
    episode_length = 104


class Nonsense(Plain):
    max_episode_length, episode_length = "many", True


class Says(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper that says so of an environment that does not."""

    obs_requires_prev_action = True


def wrapped() -> Any:
    return gymnasium.wrappers.TransformReward(Asks(), lambda reward: reward)


def said_by_a_wrapper() -> Any:
    return Says(Plain())


CASES = {Plain: False, Denies: False, Asks: True, wrapped: True, said_by_a_wrapper: True}


def in_both(makes: Any) -> Any:
    """Each in the same process, and in others, which take seconds to start."""
    slow = pytest.mark.slow
    pairs = [pytest.param(make, "sync") for make in makes]
    pairs += [pytest.param(make, "async", marks=slow) for make in makes]
    return pytest.mark.parametrize(("make", "vectorization"), pairs)


@in_both(CASES)
def test_every_environment_of_a_vector_is_asked(make: Any, vectorization: Any) -> None:
    env = make_vector_env(EnvConfig(num_envs=2, vectorization=vectorization), make)
    try:
        assert wants_previous_action(env) is CASES[make]
        env.reset(seed=0)  # and goes on
        env.step(np.zeros(2, np.int64))
    finally:
        env.close()


@pytest.mark.parametrize(
    ("module", "make", "expected"),
    [("popgym", Denies, True), ("popgym", Plain, False), ("mygym", Denies, False)],
)
def test_all_games_of_popgym_have_it_as_in_its_own_results(
    module: str, make: Any, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    game = ModuleType(f"{module}.envs")
    game.Game = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    monkeypatch.setitem(sys.modules, f"{module}.envs", game)
    gymnasium.register("Game-v0", entry_point=f"{module}.envs:Game")
    try:
        env = make_vector_env(EnvConfig(id="Game-v0", num_envs=2))
        assert wants_previous_action(env) is expected
        env.close()
    finally:
        del gymnasium.registry["Game-v0"]


LIMITS = {Plain: None, Limited: 100, OtherName: 104, Nonsense: None}


@in_both(LIMITS)
def test_the_limit_of_a_game(make: Any, vectorization: Any) -> None:
    env = make_vector_env(EnvConfig(num_envs=2, vectorization=vectorization), make)
    try:
        assert declared_limit(env) == LIMITS[make]
    finally:
        env.close()


@pytest.mark.parametrize("agent", [{}, {"actors": 1}])
def test_rollouts_cover_a_game_whose_limit_is_declared(agent: Any) -> None:
    with RecurrentPPO(Limited, env={"num_envs": 2}, agent=agent, logger="none") as one:
        assert one.algorithm.rollout_steps == 100
    options: Any = {"num_envs": 2, "max_episode_steps": 80}  # what is asked for comes first
    with RecurrentPPO(Limited, env=options, agent=agent, logger="none") as one:
        assert one.algorithm.rollout_steps == 80


def test_a_vector_of_its_own_kind_is_asked_itself() -> None:
    env: Any = gymnasium.make_vec("xlstm_rl/MemoryChain-v0", num_envs=2)
    assert not wants_previous_action(env)
    env.unwrapped.obs_requires_prev_action = True
    assert wants_previous_action(env)
    env.close()


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
@pytest.mark.parametrize(
    ("make", "given", "expected"),
    [
        (Plain, {}, False),
        (Asks, {}, True),
        (Asks, {"previous_action": "auto"}, True),
        (Asks, {"previous_action": False}, False),
        (Plain, {"previous_action": True}, True),
    ],
)
def test_an_agent_reads_it_where_it_is_needed(
    algorithm: Any, make: Any, given: dict[str, Any], expected: bool, tmp_path: Path
) -> None:
    agent = {"rollout_steps": 8}
    run = str(tmp_path / "run")
    options: Any = {"env": {"num_envs": 2}, "policy": given, "agent": agent, "run_dir": run}
    with algorithm(make, **options) as one:
        assert one.config.policy.previous_action is expected
        assert ("action" in one.policy.auxiliary.state_shapes) is expected
        one.learn(32)
    assert load_yaml(tmp_path / "run" / "config.yaml")["policy"]["previous_action"] is expected
    found = algorithm.load(run, make)
    with found:
        assert ("action" in found.policy.auxiliary.state_shapes) is expected


NUMBERS, CHOICES = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3)
ACTIONS = {
    "discrete": (CHOICES, ENTROPY_COEF),
    "multi_discrete": (spaces.MultiDiscrete([2, 3]), ENTROPY_COEF),
    "multi_binary": (spaces.MultiBinary(2), ENTROPY_COEF),
    "tuple": (spaces.Tuple((CHOICES, CHOICES)), ENTROPY_COEF),
    "box": (NUMBERS, 0.0),
    "dict": (spaces.Dict({"move": NUMBERS, "fire": CHOICES}), 0.0),
}


class Acts(Plain):
    """Has the action space that it is asked for."""

    def __init__(self, actions: Any, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = actions


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
@pytest.mark.parametrize(("actions", "bonus"), ACTIONS.values(), ids=ACTIONS)
def test_choices_have_an_entropy_bonus_and_numbers_none(
    algorithm: Any, actions: Any, bonus: float, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    agent = {"rollout_steps": 8}
    make = partial(Acts, actions)
    options: Any = {"env": {"num_envs": 2}, "logger": "none"}
    with algorithm(make, **options, agent=agent, run_dir=run) as one:
        one.learn(16)
        assert one.algorithm.entropy_bonus == bonus
        assert one.schedules.at(0.0)["entropy_coef"] == bonus
    assert load_yaml(tmp_path / "run" / "config.yaml")["agent"]["entropy_coef"] == bonus
    asked: Any = {"entropy_coef": 0.02, "entropy_coef_end": 1.0}
    with algorithm(make, **options, agent={**agent, **asked}) as one:
        assert one.algorithm.entropy_coef == 0.02


@pytest.mark.parametrize(
    ("algorithm", "sections"),
    [
        (RecurrentPPO, {"policy": {"action_distribution": {"initial_log_std": 0.0}}}),
        (RecurrentPPO, {"agent": {"entropy_coef": 0.0, "entropy_coef_end": 1.0}}),
        (
            RecurrentPPO,
            {"agent": {"normalize_advantage": False, "advantage_scale_decay": 0.0}},
        ),
    ],
)
def test_defaults_of_before_that_nothing_reads_are_let_pass(
    algorithm: Any, sections: dict[str, Any]
) -> None:
    """The file of a run holds every option, and trains again."""
    with algorithm(Plain, env={"num_envs": 2}, logger="none", **sections) as one:
        assert one.config.policy.action_distribution == PolicyConfig().action_distribution
    for section, options in sections.items():
        other = _with_another_number(options)
        with pytest.raises(ValueError, match=r"an option of"):
            algorithm(Plain, env={"num_envs": 2}, logger="none", **{section: other})


def _with_another_number(options: dict[str, Any]) -> dict[str, Any]:
    """The last option 0.1 larger or smaller, inside a section or not."""
    *rest, (name, value) = options.items()
    other = _with_another_number(value) if isinstance(value, dict) else abs(value - 0.1)
    return dict([*rest, (name, other)])


@pytest.mark.parametrize(("actions", "bonus"), ACTIONS.values(), ids=ACTIONS)
def test_updates_end_early_where_an_action_is_a_number(
    actions: Any, bonus: float, tmp_path: Path
) -> None:
    run, make = str(tmp_path / "run"), partial(Acts, actions)
    options: Any = {"env": {"num_envs": 2}, "logger": "none"}
    expected = None if bonus else TARGET_KL
    with RecurrentPPO(make, **options, agent={"rollout_steps": 8}, run_dir=run) as one:
        one.learn(16)
        assert one.algorithm.target_kl == one.algorithm.kl_limit == expected
    assert load_yaml(tmp_path / "run" / "config.yaml")["agent"]["target_kl"] == expected
    for asked in (None, 0.1):
        own = str(tmp_path / str(asked))
        agent = {"rollout_steps": 8, "target_kl": asked}
        with RecurrentPPO(make, **options, agent=agent, run_dir=own) as one:
            one.learn(16)
            assert one.algorithm.kl_limit == asked
        with RecurrentPPO.load(own, make) as again:  # as a run of before there was `auto`
            assert again.algorithm.kl_limit == asked


def test_a_target_kl_is_given_by_word_too() -> None:
    for word, value in (("none", None), ("auto", "auto"), ("0.03", 0.03)):
        agent: Any = parse_config(TrainConfig, ["--agent.target-kl", word]).agent
        assert agent.target_kl == value
    with pytest.raises(ConfigError, match="target_kl"):
        parse_config(TrainConfig, ["--agent.target-kl", "0"])


def test_a_schedule_of_a_bonus_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"entropy_coef_end=0\.5.*numbers \(Box\): give agent\.e"):
        RecurrentPPO("Pendulum-v1", agent={"entropy_coef_end": 0.5}, logger="none")
    with RecurrentPPO("CartPole-v1", agent={"entropy_coef_end": 0.5}, logger="none") as one:
        assert one.algorithm.entropy_coef == 0.01


def test_a_loss_of_ones_own_asks_for_the_number() -> None:
    with pytest.raises(ValueError, match=r"entropy_coef=auto: known once"):
        _ = AlgorithmConfig(algo="ppo").entropy_bonus
    assert AlgorithmConfig(algo="ppo", entropy_coef=0.5).entropy_bonus == 0.5
    with pytest.raises(ValueError, match=r"target_kl=auto: known once"):
        _ = PPOConfig().kl_limit


def test_actors_play_with_it_too() -> None:
    agent: Any = {"rollout_steps": 8, "actors": 1}
    with RecurrentPPO(Asks, env={"num_envs": 2}, agent=agent, logger="none") as one:
        assert one.config.policy.previous_action is True
        one.learn(32)


def test_a_policy_without_an_environment_has_none() -> None:
    given = MemoryConfig(width=16), PolicyConfig(), NormalizationConfig()
    assert not Policy(BOX, spaces.Discrete(3), *given).auxiliary.sizes


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_comparison_counts_and_trains_with_it(vectorization: Any) -> None:
    gymnasium.register("Asks-v0", entry_point=Asks)
    gymnasium.register("Plain-v0", entry_point=Plain)
    try:
        counts = {}
        for name in ("Asks-v0", "Plain-v0"):
            env = EnvConfig(id=name, num_envs=2, vectorization=vectorization)
            sizes = PolicySizes(env)
            config = sizes.resolved(TrainConfig(env=env))
            assert config.policy.previous_action is (name == "Asks-v0")
            counts[name] = sizes.count(config)
        assert counts["Asks-v0"] > counts["Plain-v0"]
    finally:
        del gymnasium.registry["Asks-v0"], gymnasium.registry["Plain-v0"]


def test_what_else_is_written_there_is_refused() -> None:
    assert parse_config(TrainConfig, []).policy.previous_action == "auto"
    for word, value in (("true", True), ("false", False), ("auto", "auto")):
        found = parse_config(TrainConfig, ["--policy.previous-action", word])
        assert found.policy.previous_action == value
    with pytest.raises(ConfigError, match="auto"):
        parse_config(TrainConfig, ["--policy.previous-action", "atuo"])
