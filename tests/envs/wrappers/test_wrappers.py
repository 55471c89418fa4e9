import pickle
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from xlstm_rl.envs import Delay, Flicker, NoVelocity, ObservationNoise, RandomStartCue


class Counter(gym.Env):
    """Observes the step's number, and beside it a random one; the same array every time."""

    def __init__(self, length=20, low=1.0):
        self.observation_space = spaces.Box(low, 100, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.length = length
        self.seen = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seen[:] = 1, self.np_random.uniform(1, 2)
        return self.seen, {"first": True}

    def step(self, action):
        self.seen[:] = self.seen[0] + 1, self.np_random.uniform(1, 2)
        return self.seen, float(action), bool(self.seen[0] > self.length), False, {}


class Letters(gym.Env):
    """Observes 3, 4, 5, 3, 4, 5, ..."""

    observation_space = spaces.Discrete(3, start=3)
    action_space = spaces.Discrete(2)
    time = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.int64(3), {}

    def step(self, action):
        self.time += 1
        return np.int64(3 + self.time % 3), 1.0, self.time == 30, False, {}


def play(env, seed=None, steps=15):
    observations = [np.copy(env.reset(seed=seed)[0])]
    observations += [np.copy(env.step(1)[0]) for _ in range(steps)]
    return np.stack(observations)


WRAPPED = {
    "Flicker": lambda env: Flicker(env, 0.5),
    "ObservationNoise": lambda env: ObservationNoise(env, 0.1),
    "Delay": lambda env: Delay(env, 2),
    "RandomStartCue": lambda env: RandomStartCue(env, 3),
    "NoVelocity": lambda env: NoVelocity(env, [1]),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("env_id", ["xlstm_rl/TMaze-v0", "MountainCarContinuous-v0"])
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is -?infinity")
def test_gymnasium_finds_nothing_wrong(wrap, env_id):
    # Two warnings are let through: that there is a wrapper, and that noise has no bounds.
    check_env(wrap(gym.make(env_id)), skip_render_check=True)


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_observations_are_in_their_space_and_are_not_the_environments_own_array(wrap):
    env = wrap(Counter())
    observations = [env.reset(seed=0)[0]]
    for _ in range(19):
        observations.append(env.step(1)[0])
    for observation in observations:
        assert observation in env.observation_space
        assert observation.dtype == np.float32


@pytest.mark.parametrize("name", ["Flicker", "ObservationNoise", "RandomStartCue"])
def test_the_wrapper_is_seeded_and_leaves_the_environments_stream_alone(name):
    def wrapped():
        return WRAPPED[name](Counter())

    env = wrapped()
    first = play(env, 5)
    np.testing.assert_array_equal(play(wrapped(), 5), first)
    np.testing.assert_array_equal(play(env, 5), first)
    assert (play(env, 6) != first).any()
    bare = Counter()
    play(bare, 5, 30)
    play(env, 5, 40)
    # Both took from their streams what their own steps ask for.
    steps = int(env.unwrapped.seen[0]) - int(bare.seen[0])
    [bare.step(0) for _ in range(steps)]
    [env.step(0) for _ in range(-steps)]
    assert bare.np_random.bit_generator.state == env.unwrapped.np_random.bit_generator.state
    assert env.np_random is not env.unwrapped.np_random


def test_without_a_seed_the_stream_goes_on():
    env = Flicker(Counter(), 0.5)
    runs = {play(env, seed, 40)[:, 0].tobytes() for seed in (1, None, None)}
    assert len(runs) == 3
    assert play(Flicker(Counter(), 0.5), None, 40).shape == (41, 2)


def test_two_wrappers_of_one_kind_draw_different_numbers():
    inner = ObservationNoise(Counter(), 1.0)
    outer = ObservationNoise(inner, 1.0)
    outer.reset(seed=0)
    assert inner.np_random.bit_generator.state != outer.np_random.bit_generator.state


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("copy", [deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_in_the_middle_of_an_episode_goes_on_alike(wrap, copy):
    env = wrap(gym.make("xlstm_rl/MemoryChain-v0", length=9))
    env.reset(seed=0)
    env.step(0)
    other = copy(env)
    for _ in range(6):
        np.testing.assert_array_equal(env.step(0)[0], other.step(0)[0])


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_an_environment_can_be_made_again_from_its_specification(wrap):
    env = wrap(gym.make("CartPole-v1"))
    again = gym.make(env.spec)
    assert type(again) is type(env)
    assert again.observation_space == env.observation_space
    np.testing.assert_array_equal(play(again, 3, 5), play(env, 3, 5))


@pytest.mark.parametrize(("probability", "shares"), [(0, (0, 0)), (1, (1, 1)), (0.3, (0.27, 0.33))])
def test_flicker_blanks_the_share_that_was_asked_for(probability, shares):
    # 4000 draws: four standard errors are 4 sqrt(.3 * .7 / 4000) = .029
    env = Flicker(Counter(length=5000), probability)
    observations = play(env, 0, 3999)
    blank = (observations == 0).all(1)
    assert shares[0] <= blank.mean() <= shares[1]
    np.testing.assert_array_equal(observations[~blank, 0], np.arange(1, 4001)[~blank])
    if probability == 0.3:
        following = blank[1:][blank[:-1]].mean()  # independent of the one before
        assert abs(following - 0.3) < 0.055


def test_a_blank_of_discrete_observations_is_one_value_more():
    env = Flicker(Letters(), 0.5)
    assert env.observation_space == spaces.Discrete(4, start=3)
    observations = play(env, 0, 29)
    bare = play(Letters(), 0, 29)
    assert set(observations) == {3, 4, 5, 6}
    assert ((observations == bare) | (observations == 6)).all()


def test_noise_has_the_scale_that_was_asked_for():
    env = ObservationNoise(Counter(length=5000), [0.5, 0.0])
    assert env.observation_space == spaces.Box(
        np.float32([-np.inf, 1]), np.float32([np.inf, 100]), dtype=np.float32
    )
    bare, noisy = play(Counter(length=5000), 0, 3999), play(env, 0, 3999)
    noise = noisy - bare
    np.testing.assert_array_equal(noise[:, 1], 0)
    # Four standard errors: of the mean 4 * .5 / sqrt(4000), of the deviation 1 / sqrt(2) of that.
    assert abs(noise[:, 0].mean()) < 0.032
    assert abs(noise[:, 0].std() - 0.5) < 0.023


@pytest.mark.parametrize("steps", [1, 3])
def test_a_delayed_observation_comes_that_many_steps_later(steps):
    env = Delay(Counter(), steps)
    for _ in range(2):
        times = play(env, 0, 10)[:, 0]
        np.testing.assert_array_equal(times, np.maximum(np.arange(11) - steps, 0) + 1)
    np.testing.assert_array_equal(
        play(Delay(Letters(), steps))[: steps + 2], [3] * (steps + 1) + [4]
    )


def test_the_cue_comes_after_a_random_wait_and_the_episode_takes_its_course():
    env = RandomStartCue(Counter(), max_wait=4)
    assert env.observation_space == spaces.Box(np.float32(0), np.float32(100), (2,), np.float32)
    waits = []
    for seed in range(200):
        observation, info = env.reset(seed=seed)
        assert info == {"first": True}
        wait = 0
        while not observation.any():
            observation, reward, terminated, truncated, _ = env.step(1)
            assert (reward, terminated, truncated) == (0.0, False, False)
            wait += 1
        assert observation[0] == 1
        rest = [deepcopy(env.step(1)) for _ in range(20)]
        assert [step[0][0] for step in rest] == list(range(2, 22))
        assert [step[1] for step in rest] == [1.0] * 20
        assert [step[2] for step in rest] == [False] * 19 + [True]
        waits.append(wait)
    # 40 of each are expected, with a standard deviation of sqrt(200 * .2 * .8) = 5.7
    counts = np.bincount(waits, minlength=5)
    assert counts.size == 5
    assert counts.min() > 17
    assert counts.max() < 63


@pytest.mark.parametrize("cue_steps", [1, 3])
def test_the_cue_is_hidden_after_its_steps(cue_steps):
    env = RandomStartCue(Counter(), max_wait=0, components=[1], cue_steps=cue_steps)
    observations = play(env, 0, 6)
    np.testing.assert_array_equal(observations[:, 0], np.arange(1, 8))
    np.testing.assert_array_equal(observations[:, 1] != 0, np.arange(7) < cue_steps)


def test_a_wait_before_discrete_observations_shows_the_further_value():
    env = RandomStartCue(Letters(), max_wait=2)
    firsts = {int(env.reset(seed=seed)[0]) for seed in range(20)}
    assert firsts == {3, 6}
    assert env.observation_space == spaces.Discrete(4, start=3)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda: Flicker(Counter(), 1.5), "probability of Flicker is 1.5, expected .* 0 to 1"),
        (lambda: Flicker(Counter(), True), "probability of Flicker is True"),
        (
            lambda: Flicker(gym.make("Blackjack-v1"), 0.5),
            "needs a Box or Discrete space, got Tuple",
        ),
        (
            lambda: ObservationNoise(Counter(), -1),
            "scale of ObservationNoise is -1, expected a number >= 0",
        ),
        (lambda: ObservationNoise(Counter(), [1, 2, 3]), r"one for each component .*\(2,\)"),
        (lambda: ObservationNoise(Counter(), "much"), "scale of ObservationNoise is 'much'"),
        (lambda: ObservationNoise(Letters(), 1), "needs a Box of floats, got Discrete"),
        (lambda: Delay(Counter(), 0), "Delay.steps=0: expected an integer >= 1"),
        (lambda: RandomStartCue(Counter(), -1), r"RandomStartCue\.max_wait=-1: .* >= 0"),
        (lambda: RandomStartCue(Counter(), cue_steps=0), r"RandomStartCue\.cue_steps=0"),
        (lambda: RandomStartCue(Counter(), components=[2]), r"are \[2\], expected indices below 2"),
        (
            lambda: RandomStartCue(Letters(), components=[0]),
            "indices below .* of an observation vector",
        ),
    ],
)
def test_impossible_arguments_are_refused(wrap, message):
    with pytest.raises(ValueError, match=message):
        wrap()
