"""What environments do wrong is told with the environment and the step."""

import os
import signal
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.collection.collector import Collector
from xlstm_rl.envs import EnvConfig, make_vector_env
from xlstm_rl.errors import EnvError, TrainingError

VECTOR = spaces.Box(-1, 1, (3,))
ROOM = spaces.Discrete(4, start=1)


class Faulty(gymnasium.Env[Any, Any]):
    """Fine for two steps of its second episode, then answers `answer(observation)`."""

    action_space = spaces.Discrete(2)

    def __init__(
        self,
        space: Any,
        answer: Callable[[Any], Any] = lambda obs: obs,
        reward: float = 0.0,
    ) -> None:
        self.observation_space, self.answer, self.reward = space, answer, reward
        self.episode = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        obs, broken = self.observation_space.sample(), self.episode == 2 and self.t == 3
        reward = self.reward if broken else 0.0
        return self.answer(obs) if broken else obs, reward, self.t == 4, False, {}


def _raise(_: Any) -> Any:
    raise ZeroDivisionError("no floor")


NESTED = spaces.Dict(pose=VECTOR, room=ROOM)
FAULTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "raises": (VECTOR, {"answer": _raise}, "raised in step 2 of its episode: Zero.*: no floor"),
    "shape": (
        VECTOR,
        {"answer": lambda _: np.zeros(1, np.float32)},
        r"after 3 steps of its episode: its observation has shape \[1\], its space is Box",
    ),
    "choice": (ROOM, {"answer": lambda _: 0}, r"the observation is 0, its space is Discrete\(4"),
    "nested choice": (
        NESTED,
        {"answer": lambda obs: {**obs, "room": 5}},
        r"the observation 'room' is 5, its space is Discrete\(4",
    ),
    "missing part": (
        NESTED,
        {"answer": lambda obs: {"pose": obs["pose"]}},
        r"no part 'room' in a value with \['pose'\]",
    ),
    "nan": (VECTOR, {"answer": lambda obs: obs * np.nan}, "observation"),
    "nested infinity": (
        NESTED,
        {"answer": lambda obs: {**obs, "pose": obs["pose"] + np.inf}},
        "observation 'pose'",
    ),
    "reward": (VECTOR, {"reward": np.inf}, "reward"),
}


def _agent(made: Any, **sections: Any) -> RecurrentPPO:
    return RecurrentPPO(
        made,
        memory={"kind": "gru", "width": 8},
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
        **{"logger": {"kind": "none"}, **sections},
    )


def _vector(space: Any, fault: dict[str, Any]) -> Any:
    """Three environments, of which number 1 has the fault."""
    calls: list[int] = []

    def make() -> Any:
        calls.append(1)
        return Faulty(space, **(fault if len(calls) == 2 else {}))

    return make_vector_env(EnvConfig(num_envs=3), make)


@pytest.mark.parametrize("fault", FAULTS)
def test_training_names_the_environment_and_the_step(fault: str) -> None:
    space, arguments, message = FAULTS[fault]
    agent = _agent(_vector(space, arguments))
    before = [p.detach().clone() for p in agent.parameters]
    with pytest.raises(TrainingError, match=message) as caught:
        agent.learn(96)
    text = str(caught.value)
    # its seventh answer: six steps of three environments came before; NaN is told with the step
    # that would have seen it
    step = "step 21" if message.startswith("observation") else "step 18"
    assert "environment 1" in text and step in text and "\n" not in text
    assert all((a == b).all() for a, b in zip(before, agent.parameters, strict=True))


@pytest.mark.parametrize("steps", [6, 7])
@pytest.mark.parametrize("mode", ["same_step", "disabled", "next_step"])
def test_an_observation_at_the_border_of_a_rollout_is_looked_at_too(mode: str, steps: int) -> None:
    class Late(Faulty):
        def step(self, action: Any) -> Any:
            obs, reward, _, _, info = super().step(action)
            broken = self.t == 6 and self.episode == 1
            return (obs * np.nan if broken else obs), reward, False, broken, info

    agent = _agent(lambda: Late(VECTOR), env={"num_envs": 1, "autoreset": mode})
    agent._collector = Collector(agent.env, agent.policy, steps, steps, 0, agent.sample_generator)
    with pytest.raises(TrainingError, match=r"non-finite observation in environment 0 at step 6"):
        agent._collector.collect()


@pytest.mark.parametrize("fault", FAULTS)
def test_evaluation_names_the_episode_and_the_step(fault: str) -> None:
    space, arguments, message = FAULTS[fault]
    agent = _agent(lambda: Faulty(space), env={"num_envs": 2})
    with pytest.raises(EnvError, match=message) as caught:
        evaluate(agent.policy, lambda: Faulty(space, **arguments), episodes=25)
    # twenty side by side; the first of them plays number 20 next
    assert str(caught.value).startswith("environment of episode 20 at step")


def test_a_vector_of_the_user_s_own_is_checked_as_well() -> None:
    class Wrong(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            observation, *rest = super().step(actions)
            return (observation[:, :2], *rest)

    class Broken(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            raise KeyError("board")

    makers = [lambda: Faulty(VECTOR)] * 2
    with pytest.raises(EnvError, match=r"step 0: the observation of 2 environments has shape \[2,"):
        _agent(Wrong(makers, autoreset_mode=AutoresetMode.SAME_STEP)).learn(16)
    with pytest.raises(EnvError, match=r"step 0: Broken.* raised KeyError: 'board'"):
        _agent(Broken(makers, autoreset_mode=AutoresetMode.SAME_STEP)).learn(16)


@pytest.mark.parametrize("kind", ["observation_space", "action_space"])
def test_environments_of_different_spaces_are_refused(kind: str) -> None:
    sizes = iter([2, 2, 3])

    def make() -> Any:
        env = Faulty(VECTOR)
        space = spaces.Box(-1, 1, (next(sizes),)) if kind == "observation_space" else None
        setattr(env, kind, space or spaces.Discrete(next(sizes)))
        return env

    with pytest.raises(ValueError, match=f"the {kind} of environment 2 is not that of.* differs:"):
        _agent(make, env={"num_envs": 3})


class Killed(gymnasium.Env[Any, Any]):
    """Its process is killed in its third step."""

    observation_space, action_space = VECTOR, spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        if self.t == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.zeros(3, np.float32), 0.0, False, False, {}


@pytest.mark.slow
def test_a_process_that_dies_is_told() -> None:
    agent = _agent(Killed, env={"num_envs": 2, "vectorization": "async"})
    with pytest.raises(
        EnvError, match=r"step 4: a process of environments.* died \(\w+\).*vectorization=sync"
    ):
        agent.learn(16)
    agent.close()  # the others, if any, are gone too
    assert not any(one.is_alive() for one in agent.env.processes)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Gymnasium prints the traceback with them
def test_an_environment_that_raises_in_its_process_is_named() -> None:
    def make() -> Any:
        return Faulty(VECTOR, _raise)

    agent = _agent(make, env={"num_envs": 1, "vectorization": "async"})
    with pytest.raises(EnvError, match=r"step 6: environment 0 raised in step 2 .*: no floor"):
        agent.learn(16)


class Fragile(Faulty):
    """Raises in the third step of every second episode; pays 1 a step, broken or not."""

    made = 0

    def __init__(self) -> None:
        super().__init__(VECTOR)
        Fragile.made += 1
        self.episode = Fragile.made - 1  # so that a new one goes on with the next kind

    def step(self, action: Any) -> Any:
        self.t += 1
        if self.episode % 2 == 0 and self.t == 3:
            raise ZeroDivisionError("no floor")
        return self.observation_space.sample(), 1.0, self.t == 4, False, {}


@pytest.mark.filterwarnings("ignore:environment 0 raised:RuntimeWarning")
@pytest.mark.parametrize("mode", ["same_step", "disabled", "next_step"])
def test_a_restarted_environment_s_broken_episode_is_kept_out_of_the_loss(mode: str) -> None:
    Fragile.made = 0
    env = {"num_envs": 1, "autoreset": mode, "on_error": "restart"}
    agent = _agent(Fragile, env=env)
    agent.learn(32)
    assert Fragile.made > 3 and agent._collector is not None
    seen = 0
    for _ in range(6):
        rollout = agent._collector.collect()
        data = rollout.data[0]
        assert set(rollout.episode_lengths) <= {4} and set(rollout.episode_returns) <= {4.0}
        starts = data["reset"].nonzero().flatten().tolist()
        for first, after in pairwise(starts):
            valid = data["valid"][first:after].numpy()
            steps = int((data["reward"][first:after] == 1).sum())
            if steps == 4:
                assert valid[:4].all()  # and in next_step mode a dead one behind it
            else:
                assert steps == 2 and not valid.any()
            seen += steps == 2
    assert seen >= 2


def test_an_environment_that_always_raises_is_given_up() -> None:
    class Dead(Faulty):
        def step(self, action: Any) -> Any:
            raise ZeroDivisionError("no floor")

    agent = _agent(lambda: Dead(VECTOR), env={"num_envs": 1, "on_error": "restart"})
    with (
        pytest.warns(RuntimeWarning, match="environment 0 raised in step 0.*: restarted"),
        pytest.raises(EnvError, match=r"environment 0 .*no floor \(3 times in a row: .* gives up"),
    ):
        agent.learn(16)


def test_a_native_vector_form_cannot_restart() -> None:
    with pytest.raises(ValueError, match="on_error='restart' needs single environments"):
        EnvConfig(on_error="restart", vectorization="native")
    env = make_vector_env(EnvConfig(on_error="restart", num_envs=2))  # which has a native form
    assert isinstance(env, SyncVectorEnv)
    env.close()
