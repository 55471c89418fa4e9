"""With `env.on_error: restart`, what an environment does wrong costs its episode and no more."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from xlstm_rl.envs import EnvConfig, make_vector_env
from xlstm_rl.errors import EnvError

VECTOR = spaces.Box(-1, 1, (3,))
ROOM = spaces.Discrete(4, start=1)
IMAGE = spaces.Box(0, 255, (8, 8, 1), np.uint8)
NESTED = spaces.Dict(pose=VECTOR, rest=spaces.Tuple([ROOM, IMAGE]))
MASKED = spaces.Dict(pose=VECTOR, action_mask=spaces.MultiBinary(2))

pytestmark = pytest.mark.usefixtures("forked")

Answer = list[Any]
Fault = Callable[[Answer], Any]
"""Spoils observation, reward, terminated, truncated and info."""


def _raise(_: Answer) -> Any:
    raise ZeroDivisionError("no floor")


def _seen(change: Callable[[Any], Any]) -> Fault:
    return lambda answer: (change(answer[0]), *answer[1:])


def _paid(reward: Any) -> Fault:
    return lambda answer: (answer[0], reward, *answer[2:])


def _told(info: dict[str, Any]) -> Fault:
    return lambda answer: (*answer[:4], info)


INFO, IN_OBSERVATION = {"action_mask": "info"}, {"action_mask": "observation"}
FAULTS: dict[str, tuple[Any, Fault, dict[str, Any], str]] = {
    "raises": (VECTOR, _raise, {}, "raised in step 2 of its episode: ZeroDivisionError: no floor"),
    "nothing": (VECTOR, lambda _: None, {}, "its step returned nothing, expected observation"),
    "old form": (VECTOR, lambda answer: answer[1:], {}, "its step returned 4 values, expected"),
    "four values": (VECTOR, lambda answer: answer[:4], {}, "its step returned 4 values, expected"),
    "shape": (VECTOR, _seen(lambda obs: obs[:1]), {}, r"its observation has shape \[1\]"),
    "missing part": (NESTED, _seen(lambda obs: {"pose": obs["pose"]}), {}, "no part 'rest' in a"),
    "choice": (ROOM, _seen(lambda _: 0), {}, r"observation is 0, its space is Discrete\(4"),
    "text": (VECTOR, _seen(lambda _: ["a"] * 3), {}, "dtype <U1"),
    "image of floats": (IMAGE, _seen(lambda obs: obs / 255), {}, "dtype float64, its space is Box"),
    "wide image": (IMAGE, _seen(lambda obs: obs.astype(np.int64)), {}, "dtype int64"),
    "nan": (VECTOR, _seen(lambda obs: obs * np.nan), {}, "its observation is not finite"),
    "too large": (VECTOR, _seen(lambda _: np.full(3, 1e39)), {}, "too large for float32"),
    "nested infinity": (
        NESTED,
        _seen(lambda obs: {**obs, "pose": np.full(3, -np.inf, np.float32)}),
        {},
        "its observation 'pose' is not finite",
    ),
    "reward": (VECTOR, _paid(np.nan), {}, "its reward is nan"),
    "large reward": (VECTOR, _paid(-1e39), {}, r"its reward is -1e\+39"),
    "no reward": (VECTOR, _paid(None), {}, "its reward is None, expected a number"),
    "mask": (VECTOR, _told({"action_mask": np.zeros(2, np.int8)}), INFO, "allows no action"),
    "mask's shape": (
        VECTOR,
        _told({"action_mask": np.ones(3, np.int8)}),
        INFO,
        r"shape \[3\], expected \[2\]",
    ),
    "no mask": (VECTOR, _told({}), INFO, "info has no 'action_mask'"),
    "mask in the observation": (
        MASKED,
        _seen(lambda obs: {**obs, "action_mask": np.zeros(2, np.int8)}),
        IN_OBSERVATION,
        "after 3 steps of its episode: the action mask allows no action",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_episode_is_kept_out_of_the_loss(
    fragile: type[Any],
    restarting_agent: Callable[..., Any],
    train_through_faults: Callable[[Any, int], None],
    fault: str,
) -> None:
    space, spoil, policy, message = FAULTS[fault]
    agent = restarting_agent(lambda: fragile(space, spoil), policy)
    with pytest.warns(RuntimeWarning, match=message) as caught:
        train_through_faults(agent, 2)
    told = [str(one.message) for one in caught]
    for row in (0, 1):
        mine = [text for text in told if text.startswith(f"environment {row} ")]
        # four rollouts of 16 steps, of which seven at most go by between two faults
        assert len(mine) == 64 // 7
        assert all(f"restarted, restart {n + 1} of" in text for n, text in enumerate(mine))
    assert len(told) == 2 * (64 // 7)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "no mask"])
def test_a_fault_in_every_first_step_is_given_up(
    fragile: type[Any], restarting_agent: Callable[..., Any], fault: str
) -> None:
    space, spoil, policy, message = FAULTS[fault]

    class Hopeless(fragile):
        def step(self, action: Any) -> Any:
            self.episode, self.t = 2, 2
            return super().step(action)

    made = iter([fragile, *[Hopeless] * 3])
    agent = restarting_agent(lambda: next(made)(space, spoil), policy)
    message = message.replace("step 2", "step 0").replace("3 steps", "1 steps")
    with (
        pytest.warns(RuntimeWarning, match=f"environment 1 .*{message}.*: restarted") as caught,
        pytest.raises(EnvError, match=r"step 4: environment 1 .*\(3 times in a row: .* gives up"),
    ):
        agent.learn(64)
    assert len(caught) == 2


def test_a_mask_that_is_never_there_is_given_up_at_once(
    fragile: type[Any], restarting_agent: Callable[..., Any]
) -> None:
    class Silent(fragile):
        def reset(self, **kwargs: Any) -> Any:
            return super().reset(**kwargs)[0], {}

    agent = restarting_agent(lambda: Silent(VECTOR, _raise), INFO)
    with (
        pytest.warns(RuntimeWarning, match="info has no 'action_mask'"),
        pytest.raises(EnvError, match=r"step 0: environment 0 after 0 steps .*\(3 times in a row"),
    ):
        agent.learn(64)


def test_what_is_no_fault_restarts_nothing(
    fragile: type[Any], restarting_agent: Callable[..., Any]
) -> None:
    def harmless(answer: Answer) -> Any:
        # beyond the bounds, a list, whole numbers, a reward of NumPy's own
        return [5, 6, -7], np.float32(1), *answer[2:]

    agent = restarting_agent(lambda: fragile(VECTOR, harmless))
    agent.learn(64)
    assert agent._collector is not None
    assert set(agent._collector.collect().episode_lengths) == {4}


def test_a_mask_beside_the_last_observation_of_an_episode_matters_not(
    fragile: type[Any], restarting_agent: Callable[..., Any]
) -> None:
    class Done(fragile):
        def step(self, action: Any) -> Any:
            *answer, info = super().step(action)
            info["action_mask"][:] = not answer[2]
            return *answer, info

    agent = restarting_agent(lambda: Done(VECTOR, tuple), INFO)
    agent.learn(64)
    assert set(agent._collector.collect().episode_lengths) == {4}


def test_a_restarted_environment_is_seeded_from_the_first_seed(fragile: type[Any]) -> None:
    def observe() -> list[Any]:
        env = make_vector_env(
            EnvConfig(num_envs=2, on_error="restart"), lambda: Sampling(VECTOR, _raise)
        )
        first = [env.reset(seed=3)[0]]
        with pytest.warns(RuntimeWarning, match="restarted"):
            return first + [env.step(np.zeros(2, np.int64))[0] for _ in range(12)]

    class Sampling(fragile):
        def _see(self) -> Any:
            return self.np_random.random(3, dtype=np.float32)

    once, again = observe(), observe()
    assert np.array_equal(once, again)
    assert len(np.unique(np.array(once)[:, :, 0])) == 26  # and no episode is played twice


def test_an_environment_that_cannot_be_made_anew_is_given_up(fragile: type[Any]) -> None:
    calls: list[int] = []

    def make() -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise OSError("no server")
        return fragile(VECTOR, _raise)

    env = make_vector_env(EnvConfig(num_envs=1, on_error="restart"), make)
    env.reset(seed=0)
    with (
        pytest.warns(RuntimeWarning, match=r"restarted, restart \d"),
        pytest.raises(RuntimeError, match=r"0 could not be created again: OSError.*3 times"),
    ):
        for _ in range(7):
            env.step(np.zeros(1, np.int64))


def test_a_new_environment_of_other_spaces_is_not_taken(fragile: type[Any]) -> None:
    sizes = iter([3, 4, 3])
    env = make_vector_env(
        EnvConfig(num_envs=1, on_error="restart"),
        lambda: fragile(spaces.Box(-1, 1, (next(sizes),)), _raise),
    )
    env.reset(seed=0)
    with pytest.warns(RuntimeWarning, match="restarted, restart") as caught:
        for _ in range(7):
            observation = env.step(np.zeros(1, np.int64))[0]
    assert len(caught) == 2 and observation.shape == (1, 3)
    assert "its observation_space changed: the shape differs" in str(caught[1].message)


@pytest.mark.filterwarnings("ignore:environment . :RuntimeWarning")  # raised in its process
@pytest.mark.parametrize("fault", ["raises", "nan", "mask", "mask in the observation"])
def test_processes_restart_their_environments_too(
    fragile: type[Any],
    restarting_agent: Callable[..., Any],
    train_through_faults: Callable[[Any, int], None],
    fault: str,
) -> None:
    space, spoil, policy, _ = FAULTS[fault]
    agent = restarting_agent(lambda: fragile(space, spoil), policy, vectorization="async")
    first = [one.pid for one in agent.env.processes]
    train_through_faults(agent, 2)
    assert [one.pid for one in agent.env.processes] == first
    agent.close()
