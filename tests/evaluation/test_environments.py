"""Which environments a policy is evaluated in."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from xlstm_rl import RecurrentPPO, evaluate, load_policy
from xlstm_rl.config import ConfigError
from xlstm_rl.envs import EnvConfig
from xlstm_rl.policy import Policy

SPACES = gymnasium.spaces.Box(-9, 9, (2,), np.float32), gymnasium.spaces.Discrete(2)


class Endless(gymnasium.Env[Any, Any]):
    """Never ends; a step pays `pay`, and `open` tells whether it was closed."""

    observation_space, action_space = SPACES

    def __init__(self, pay: float = 1.0, render_mode: str | None = None) -> None:
        self.pay, self.open, self.render_mode, self.resets = pay, True, render_mode, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.resets, self.t = self.resets + 1, 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.full(2, self.t % 9, np.float32), self.pay, False, False, {}

    def render(self) -> Any:
        return np.zeros((16, 16, 3), np.uint8)

    def close(self) -> None:
        self.open = False


TRAINING: dict[str, Any] = {
    "num_envs": 2,
    "kwargs": {"pay": 5.0},
    "wrappers": {"gymnasium.wrappers:ClipReward": {"min_reward": 0.0, "max_reward": 4.5}},
    "max_episode_steps": 4,
}
"""An episode pays 18; without the wrapper 20, without the arguments 4, without a limit it is one
without an end."""


def _agent(made: Any, **env: Any) -> RecurrentPPO:
    return RecurrentPPO(
        made,
        env=env,
        memory={"kind": "gru", "width": 8},
        agent={"rollout_steps": 4, "minibatches": 1, "epochs": 1},
        logger={"kind": "none"},
    )


class Factory:
    def make(self, pay: float = 1.0) -> Endless:
        return Endless(pay)


@dataclass(frozen=True)
class Maker:
    offset: float

    def __call__(self, pay: float = 1.0) -> Endless:
        return Endless(pay + self.offset)


FACTORY = Factory()
CALLABLES: dict[str, Callable[[], Any]] = {
    "a class": lambda: Endless,
    "a function": lambda: _endless,
    "a bound method": lambda: FACTORY.make,
    "a partial": lambda: partial(Endless),
    "a partial of a method": lambda: partial(FACTORY.make),
    "an object": lambda: Maker(1.0),
}


def _endless(pay: float = 1.0) -> Endless:
    return Endless(pay)


@pytest.mark.parametrize("name", CALLABLES)
def test_the_callable_of_the_training_keeps_its_arguments_wrappers_and_limit(
    name: str, tmp_path: Path
) -> None:
    find = CALLABLES[name]  # each look may give a new object
    agent = _agent(find(), **TRAINING)
    result = evaluate(agent.policy, find(), episodes=3)
    assert result.lengths == [4] * 3 and result.returns == [18.0] * 3
    loaded = load_policy(agent.save(tmp_path / "run"))
    assert loaded.env_config == agent.config.env
    assert evaluate(loaded, find(), episodes=3) == result


@pytest.mark.parametrize(
    "other",
    [lambda: Endless(3.0), partial(Endless, 3.0), partial(Endless, pay=3.0), Maker(2.0)],
)
def test_another_callable_is_another_environment(other: Any) -> None:
    agent = _agent(Endless, **TRAINING)
    copied = copy.deepcopy(agent.policy)
    for policy in (agent.policy, copied, _agent(Maker(1.0), **TRAINING).policy):
        result = evaluate(policy, other, episodes=2, max_episode_steps=7)
        assert result.lengths == [7, 7] and result.returns == [21.0, 21.0]


def test_another_callable_than_an_id_or_a_vector_is_another_environment() -> None:
    for made in ("CartPole-v1", SyncVectorEnv([partial(Endless, 9.0)] * 2)):
        agent = _agent(made)
        policy = _agent(Endless).policy if isinstance(made, str) else agent.policy
        policy.env_config = agent.config.env
        result = evaluate(policy, Endless, episodes=2, max_episode_steps=3)
        assert result.returns == [3.0, 3.0]


def test_a_partial_against_training_s_own_arguments_is_refused_where_nobody_knows(
    tmp_path: Path,
) -> None:
    loaded = load_policy(_agent(Endless, **TRAINING).save(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"partial has pay=3.0, .* env.kwargs.pay=5.0"):
        evaluate(loaded, partial(Endless, pay=3.0), episodes=2)
    same = evaluate(loaded, partial(Endless, pay=5.0), episodes=2)
    assert same.returns == [18.0, 18.0]
    assert evaluate(loaded, Endless(3.0), episodes=2, max_episode_steps=2).returns == [6.0, 6.0]


def test_a_policy_of_a_callable_can_be_pickled_and_asks_for_the_callable(tmp_path: Path) -> None:
    agent = _agent(lambda pay: Endless(pay), **TRAINING)
    assert pickle.loads(pickle.dumps(agent.policy.trained_on)) is not None
    vector = _agent(SyncVectorEnv([Endless] * 2))
    assert evaluate(agent.policy, episodes=2).lengths == [4, 4]  # known where it was trained
    copies = (pickle.loads(pickle.dumps(agent.policy)), load_policy(agent.save(tmp_path / "run")))
    for policy in (*copies, vector.policy):
        for env in (None, policy.env_config, "custom"):
            with pytest.raises(ConfigError, match=r"trained on a callable .*: pass `env`"):
                evaluate(policy, env)


def test_a_limit_holds_for_ids_callables_ready_environments_and_configurations() -> None:
    policy = _agent("Pendulum-v1", num_envs=1).policy
    ready = gymnasium.make("Pendulum-v1")
    config = EnvConfig("Pendulum-v1", max_episode_steps=9)
    for env in (None, "Pendulum-v1", lambda: gymnasium.make("Pendulum-v1"), ready, config):
        assert evaluate(policy, env, episodes=2, max_episode_steps=5).lengths == [5, 5]
    assert evaluate(policy, config, episodes=2).lengths == [9, 9]
    longer = evaluate(policy, "Pendulum-v1", episodes=1, max_episode_steps=250)
    assert longer.lengths == [250]  # in place of the registered 200
    for wrong in (0, -3, 2.5):
        with pytest.raises(
            ConfigError, match=f"^max_episode_steps={wrong}: expected an integer >= 1"
        ):
            evaluate(policy, max_episode_steps=wrong)  # type: ignore[arg-type]


class Twice(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Takes each action twice."""

    def step(self, action: Any) -> Any:
        first = self.env.step(action)
        return first if first[2] or first[3] else self.env.step(action)


def test_a_limit_counts_below_training_s_wrappers_and_above_those_of_a_ready_environment() -> None:
    policy = _agent("Pendulum-v1", num_envs=1, wrappers={f"{__name__}:Twice": {}}).policy
    ready = Twice(gymnasium.make("Pendulum-v1"))
    assert evaluate(policy, episodes=1, max_episode_steps=8).lengths == [4]
    assert evaluate(policy, ready, episodes=1, max_episode_steps=8).lengths == [8]


def test_the_arguments_of_training_hold_for_the_same_id_written_otherwise() -> None:
    chain = "xlstm_rl/MemoryChain-v0"
    policy = _agent(chain, kwargs={"length": 9}).policy
    assert evaluate(policy, f"xlstm_rl.envs:{chain}", episodes=1).lengths == [10]
    assert evaluate(policy, replace(EnvConfig(chain), kwargs={"length": 5}), 1).lengths == [6]


class Stateful(Endless):
    """Its score is right only where its episodes do not overlap: four steps that pay the step."""

    def step(self, action: Any) -> Any:
        observation, *_ = super().step(action)
        return observation, float(self.t), self.t == 4, False, {}


def _wrapped(env: Any) -> Any:
    return gymnasium.wrappers.ClipReward(gymnasium.wrappers.TimeLimit(env, 100), 0.0, 1.5)


def test_one_ready_environment_plays_one_episode_after_the_other_and_stays_open() -> None:
    policy: Policy = _agent(Stateful).policy
    for ready, score in ((Stateful(), 10.0), (_wrapped(Stateful()), 5.5)):
        result = evaluate(policy, ready, episodes=5)
        assert result.returns == [score] * 5 and result.lengths == [4] * 5
        assert ready.unwrapped.open and ready.unwrapped.resets == 5
    with pytest.raises(ConfigError, match="observation_space"):
        evaluate(policy, ready := gymnasium.make("CartPole-v1"), episodes=2)
    ready.reset()


@pytest.mark.parametrize("wrap", [lambda env: env, _wrapped])
@pytest.mark.parametrize("count", [1, 2])
def test_a_callable_that_returns_the_same_environment_is_refused(wrap: Any, count: int) -> None:
    shared = [Stateful() for _ in range(count)]
    calls = iter(range(100))
    policy = _agent(Stateful).policy
    with pytest.raises(ConfigError, match=r"returned the same environment twice: .*or pass the"):
        evaluate(policy, lambda: wrap(shared[next(calls) % count]), episodes=5)
    assert all(one.open for one in shared)


def test_what_evaluation_makes_it_closes_also_where_making_fails() -> None:
    made: list[Stateful] = []

    def make() -> Any:
        if len(made) == 3:
            raise RuntimeError("no more")
        made.append(Stateful())
        return made[-1]

    policy = _agent(Stateful).policy
    evaluate(policy, make, episodes=3)
    assert [one.open for one in made] == [False] * 3
    made.clear()
    with pytest.raises(RuntimeError, match="no more"):
        evaluate(policy, make, episodes=4)
    assert [one.open for one in made] == [False] * 3


def test_a_vector_of_environments_is_refused_and_stays_open() -> None:
    vector = SyncVectorEnv([Stateful] * 2)
    agent = _agent(vector)
    with pytest.raises(ConfigError, match=r"evaluation plays single environments, .* is a vector"):
        evaluate(agent.policy, vector)  # type: ignore[arg-type]
    assert all(env.open for env in vector.envs)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="env is of type int: pass `env`"):
        evaluate(agent.policy, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", [{"kwargs": {"pay": 2.0}}, {"max_episode_steps": 5}])
def test_settings_that_a_ready_vector_cannot_have_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"env.{next(iter(setting))}=.* ready made"):
        _agent(SyncVectorEnv([Stateful] * 2), **setting)


def test_every_environment_of_a_callable_must_have_the_policy_s_spaces() -> None:
    sizes = iter([2, 3])

    class Grows(Stateful):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gymnasium.spaces.Box(-9, 9, (next(sizes),), np.float32)

    with pytest.raises(ConfigError, match=r"observation_space .*\(2,\).*\(3,\)"):
        evaluate(_agent(Stateful).policy, Grows, episodes=2)
