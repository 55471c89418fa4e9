"""Answers of one environment that cannot be used: named alike in training and in evaluation."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces, wrappers

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.envs.wrappers.delay import Delay
from xlstm_rl.errors import EnvError

VECTOR = spaces.Box(-9, 9, (2,))
BYTES = spaces.Box(0, 255, (2,), np.uint8)
SMALL = spaces.Box(-100, 100, (2,), np.int8)
IMAGE = spaces.Box(0, 255, (8, 8), np.uint8)
CHOICE = spaces.Discrete(3, start=1)
BITS = spaces.MultiBinary(2)
WHEELS = spaces.MultiDiscrete([2, 3])
NESTED = spaces.Dict(near=VECTOR, room=CHOICE)

Change = Callable[[list[Any]], Any]

pytestmark = pytest.mark.usefixtures("forked")


class Changed(gymnasium.Env[Any, Any]):
    """Episodes of four steps; answers as it should but for what `step` or `reset` change."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: Any, step: Change = tuple, reset: Change = tuple) -> None:
        self.observation_space, self.change_step, self.change_reset = space, step, reset
        self.t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.change_reset([self.observation_space.sample(), {}])

    def step(self, action: Any) -> Any:
        self.t += 1
        answer = [self.observation_space.sample(), 1.0, self.t == 4, False, {}]
        return self.change_step(answer) if self.t == 2 else tuple(answer)


def _agent(make: Any, vectorization: str = "sync") -> RecurrentPPO:
    return RecurrentPPO(
        make,
        env={"num_envs": 1, "vectorization": vectorization},
        memory={"kind": "gru", "width": 8},
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
        logger={"kind": "none"},
    )


def _part(place: int, value: Any) -> Change:
    def apply(answer: list[Any]) -> Any:
        answer[place] = value
        return tuple(answer)

    return apply


def seen(value: Any) -> Change:
    return _part(0, value)


def paid(value: Any) -> Change:
    return _part(1, value)


REFUSED: dict[str, tuple[Any, Change, str]] = {
    "four values": (VECTOR, lambda a: (*a[:2], a[2], a[4]), "its step returned 4 values, expec"),
    "six values": (VECTOR, lambda a: (*a, 1), "its step returned 6 values, expected observation"),
    "nothing": (VECTOR, lambda a: None, "its step returned nothing, expected observation, reward"),
    "an observation alone": (VECTOR, lambda a: a[0], "its step returned one ndarray, expected"),
    "a reward in an array": (VECTOR, paid(np.ones(1)), r"its reward has shape \[1\], expected one"),
    "a reward in a list": (VECTOR, paid([1.0]), r"its reward has shape \[1\], expected one number"),
    "a reward of text": (VECTOR, paid("1"), "its reward is '1', expected a number"),
    "no reward": (VECTOR, paid(None), "its reward is None, expected a number"),
    "a complex reward": (VECTOR, paid(1j), "its reward is 1j, expected a number"),
    "an endless reward": (VECTOR, paid(10**400), "its reward is 1000.*, expected a number"),
    "terminated is text": (VECTOR, _part(2, "no"), "its terminated is 'no', expected a bool"),
    "truncated is text": (VECTOR, _part(3, "no"), "its truncated is 'no', expected a bool"),
    "terminated is three": (VECTOR, _part(2, 3.0), "its terminated is 3.0, expected a bool"),
    "truncated is NaN": (VECTOR, _part(3, np.nan), "its truncated is nan, expected a bool"),
    "terminated is None": (VECTOR, _part(2, None), "its terminated is None, expected a bool"),
    "truncated in an array": (VECTOR, _part(3, np.ones(1, bool)), r"truncated has shape \[1\]"),
    "no info": (VECTOR, _part(4, None), "its info is None, expected a dict"),
    "info in a list": (VECTOR, _part(4, [{}]), "its info is a list, expected a dict"),
    "ragged": (VECTOR, seen([1.0, [2.0]]), "its observation cannot be read as an array"),
    "masked": (VECTOR, seen(np.ma.array([1.0, 2.0], mask=[0, 1])), "has masked entries: fill"),
    "complex": (VECTOR, seen(np.ones(2) * 1j), "the observation has dtype complex128"),
    "objects": (VECTOR, seen(np.array([1.0, None])), "the observation has dtype object"),
    "dates": (VECTOR, seen(np.zeros(2, "M8[s]")), "the observation has dtype datetime64"),
    "no observation": (VECTOR, seen(None), r"its observation has shape \[\], its space is Box"),
    "too large for float32": (VECTOR, seen(np.full(2, 1e39)), r"holds 1e\+39, which is too large"),
    "wraps around": (SMALL, seen(np.array([1, 300])), "holds 300, which is too large for int8"),
    "a part of a byte": (BYTES, seen(np.full(2, 0.7)), "its observation has dtype float64, its sp"),
    "beyond a byte": (BYTES, seen(np.array([1, 256])), "its observation has dtype int64"),
    "an image of floats": (IMAGE, seen(np.ones((8, 8), np.float32)), "the observation has dtype f"),
    "a part of a choice": (CHOICE, seen(1.5), "the observation has dtype float64"),
    "no choice": (CHOICE, seen(np.int32(0)), r"the observation is 0, its space is Discrete\(3"),
    "no choice of the type": (CHOICE, seen(np.int64(9)), r"the observation is 9, its space is"),
    "a bool that is no choice": (CHOICE, seen(np.False_), "the observation is False, its space is"),
    "no bit": (BITS, seen(np.array([0, 2], np.int8)), r"the observation is \[0 2\], its space is"),
    "half a bit": (BITS, seen(np.array([0, 0.5])), r"the observation is \[0\. 0\.5\], its space"),
    "a wheel too far": (WHEELS, seen(np.array([0, 3])), r"the observation is \[0 3\], its space"),
    "nested": (
        NESTED,
        seen({"near": np.ones(2, np.float32), "room": 2.5}),
        "the observation 'room' has dtype float64",
    ),
    "a part is missing": (NESTED, seen({"room": 1}), r"no part 'near' in a value with \['room'\]"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_training_and_evaluation_name_it_in_one_line(fault: str) -> None:
    space, change, message = REFUSED[fault]
    with pytest.raises(EnvError, match=message) as caught:
        _agent(lambda: Changed(space, change)).learn(16)
    assert "environment 0" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(EnvError, match=message) as caught:
        evaluate(_agent(lambda: Changed(space)).policy, lambda: Changed(space, change), episodes=1)
    assert "environment of episode 0 at step" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Gymnasium prints the traceback with them
@pytest.mark.parametrize("fault", ["a reward of text", "a part of a byte", "a part of a choice"])
def test_processes_do_not_bend_it_to_fit(fault: str) -> None:
    space, change, message = REFUSED[fault]
    agent = _agent(lambda: Changed(space, change), "async")
    with pytest.raises(EnvError, match=message):
        agent.learn(16)
    agent.close()


@pytest.mark.parametrize(
    ("reset", "message"),
    [
        (lambda a: a[0], "its reset returned one ndarray, expected observation and info"),
        (lambda a: (a[0], None), "its info is None, expected a dict"),
        (lambda a: (a[0][:1], {}), r"its observation has shape \[1\]"),
    ],
)
def test_a_reset_is_looked_at_too(reset: Change, message: str) -> None:
    with pytest.raises(EnvError, match=f"environment 0 after 0 steps .*{message}"):
        _agent(lambda: Changed(VECTOR, reset=reset)).learn(16)
    policy = _agent(lambda: Changed(VECTOR)).policy
    with pytest.raises(EnvError, match=f"environment of episode 0 at step 0.*{message}"):
        evaluate(policy, lambda: Changed(VECTOR, reset=reset), episodes=1)


TAKEN: dict[str, tuple[Any, Change]] = {
    "a list": (VECTOR, list),
    "a reward of an integer": (VECTOR, paid(1)),
    "a reward of a bool": (VECTOR, paid(True)),
    "a reward of NumPy": (VECTOR, paid(np.float32(1))),
    "a reward of an array without axes": (VECTOR, paid(np.array(1.0))),
    "a reward of a fraction": (VECTOR, paid(Fraction(2, 2))),
    "a reward of a tensor": (VECTOR, paid(torch.tensor(1.0))),
    "a flag of NumPy": (VECTOR, _part(2, np.bool_(False))),
    "a flag as zero": (VECTOR, _part(2, 0)),
    "a flag as zero point zero": (VECTOR, _part(3, 0.0)),
    "a flag of an array without axes": (VECTOR, _part(3, np.array(False))),
    "a choice of Python": (CHOICE, seen(2)),
    "a choice of few bits": (CHOICE, seen(np.int8(2))),
    "bits as bools": (BITS, seen(np.array([True, False]))),
    "numbers in a list": (VECTOR, seen([1, 2])),
    "numbers out of bounds": (VECTOR, seen(np.full(2, 1e6, np.float32))),
    "a masked array without a mask": (VECTOR, seen(np.ma.array([1.0, 2.0]))),
}


@pytest.mark.parametrize("form", TAKEN)
def test_what_is_plain_is_taken(form: str) -> None:
    space, change = TAKEN[form]
    agent = _agent(lambda: Changed(space, change))
    rollout = agent._make_collector().collect()
    assert rollout.episode_returns == [4.0, 4.0] and rollout.episode_lengths == [4, 4]
    assert evaluate(agent.policy, lambda: Changed(space, change), episodes=2).returns == [4.0] * 2


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "TimeLimit": lambda env: wrappers.TimeLimit(env, 9),
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "PassiveEnvChecker": wrappers.PassiveEnvChecker,
    "TransformReward": lambda env: wrappers.TransformReward(env, float),
    "TransformObservation": lambda env: wrappers.TransformObservation(env, np.copy, None),
    "Delay": lambda env: Delay(env, steps=1),
}
ANSWERS: dict[str, tuple[Change, Change]] = {
    "four values": (lambda a: (*a[:2], a[2], a[4]), lambda a: (*a, 1)),
    "six values": (lambda a: (*a, 1), lambda a: (*a, 1)),
    "nothing": (lambda a: None, lambda a: None),
}


@pytest.mark.filterwarnings("ignore:.*old step API.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*The result returned by `env.reset:UserWarning")
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.each_value
def test_what_a_wrapper_cannot_unpack_is_told_in_the_same_words(name: str, answer: str) -> None:
    wrap, (step, reset) = WRAPPERS[name], ANSWERS[answer]
    # an older PassiveEnvChecker hands on what it saw only once
    stepped = "its step (has to return|returned .*, expected) observation, reward, terminated, "
    with pytest.raises(EnvError, match=f"environment 0 .*{stepped}") as caught:
        _agent(lambda: wrap(Changed(VECTOR, step))).learn(16)
    assert "\n" not in str(caught.value)
    policy = _agent(lambda: Changed(VECTOR)).policy
    with pytest.raises(EnvError, match=f"environment of episode 0 at step .*{stepped}"):
        evaluate(policy, lambda: wrap(Changed(VECTOR, step)), episodes=1)
    told = "its reset (has to return|returned .*, expected) observation and info"
    with pytest.raises(EnvError, match=told):
        _agent(lambda: wrap(Changed(VECTOR, reset=reset))).learn(16)


def test_an_error_of_the_environment_itself_stays_in_its_own_words() -> None:
    def unpack(answer: list[Any]) -> Any:
        first, second = answer
        return first, second

    with pytest.raises(EnvError, match=r"too many values to unpack \(expected 2\)$"):
        _agent(lambda: wrappers.TimeLimit(Changed(VECTOR, unpack), 9)).learn(16)
