from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.config import ConfigError
from xlstm_rl.envs import make_env
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.errors import EnvError
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig
from xlstm_rl.seeding import spawn_seed

CARTPOLE = EnvConfig(id="xlstm_rl/CartPoleNoVel-v1")


def _cartpole_policy() -> Policy:
    return _policy(CARTPOLE, make_env(CARTPOLE).observation_space)


def _policy(env: EnvConfig | None = None, observation: Any = None, action: Any = None) -> Policy:
    return Policy(
        observation or gymnasium.spaces.Box(-1e6, 1e6, (2,), np.float32),
        action or gymnasium.spaces.Discrete(2),
        MemoryConfig(kind="gru", width=8),
        PolicyConfig(head_width=8),
        NormalizationConfig(),
        env,
    )


class Seeded(gymnasium.Env[np.ndarray, int]):
    """Episodes of `seed % 7 + 1` steps that pay 1 each: an episode's score tells its seed."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-1e6, 1e6, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        assert seed is not None
        self.left = seed % 7 + 1
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> Any:
        self.left -= 1
        return np.zeros(2, np.float32), 1.0, self.left == 0, False, {}


@pytest.mark.parametrize("episodes", [1, 5, 50])
def test_every_episode_has_its_seed_whatever_runs_beside_it(episodes: int) -> None:
    result = evaluate(_policy(), Seeded, episodes=episodes, seed=3)
    expected = [spawn_seed(3, "evaluation", n) % 7 + 1 for n in range(episodes)]
    assert result.lengths == expected and result.returns == [float(n) for n in expected]
    assert result.mean == pytest.approx(np.mean(expected))
    assert result.std == pytest.approx(np.std(expected))


def test_memory_is_fresh_at_every_episode() -> None:
    seen: list[tuple[bool, ...]] = []
    policy = _policy()
    act = policy.act

    def spy(obs: Any, state: Any, reset: Any, *rest: Any) -> Any:
        seen.append(tuple(bool(x) for x in reset))
        return act(obs, state, reset, *rest)

    policy.act = spy  # type: ignore[assignment, method-assign]
    evaluate(policy, Seeded, episodes=22, seed=0)
    # Twenty side by side; the first two to end (after one step, or after two, ...) hand over.
    assert seen[0] == (True,) * 20
    steps = [spawn_seed(0, "evaluation", n) % 7 for n in range(20)]
    first, second = sorted(range(20), key=lambda n: (steps[n], n))[:2]
    assert [n for n, flag in enumerate(seen[steps[first] + 1]) if flag][:1] == [first]
    assert seen[steps[second] + 1][second]
    assert sum(sum(step) for step in seen) == 22


def test_the_same_seed_gives_the_same_result() -> None:
    policy = _cartpole_policy()
    for deterministic in (True, False):
        first = evaluate(policy, episodes=5, seed=1, deterministic=deterministic)
        assert evaluate(policy, episodes=5, seed=1, deterministic=deterministic) == first


def test_evaluation_changes_nothing_in_the_policy() -> None:
    policy = _cartpole_policy()
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    evaluate(policy, episodes=2)
    assert all((value == before[key]).all() for key, value in policy.state_dict().items())


def test_arguments_of_the_training_environment_are_kept() -> None:
    agent = RecurrentPPO(
        "xlstm_rl/MemoryChain-v0",
        env={"kwargs": {"length": 9}, "num_envs": 2},
        agent={"rollout_steps": 8, "minibatches": 1},
        memory={"width": 16, "num_heads": 2},
        logger={"kind": "none"},
    )
    trained_on = evaluate(agent.policy, episodes=2)
    same = evaluate(agent.policy, "xlstm_rl/MemoryChain-v0", episodes=2)
    assert trained_on.lengths == same.lengths == [10, 10]


def test_an_environment_of_other_spaces_is_refused() -> None:
    policy = _cartpole_policy()
    with pytest.raises(ConfigError, match=r"observation_space.*the shape differs: \(2,\).*\(4,\)"):
        evaluate(policy, "CartPole-v1")
    with pytest.raises(ConfigError, match=r"action_space.*the n differs: 2 against 3"):
        evaluate(
            _policy(observation=gymnasium.make("MountainCar-v0").observation_space),
            "MountainCar-v0",
        )


def test_a_policy_without_a_registered_environment_asks_for_one() -> None:
    with pytest.raises(ConfigError, match="pass `env`"):
        evaluate(_policy())


def test_counts_and_seeds_are_integers_of_any_type() -> None:
    policy = _policy()
    expected = evaluate(policy, Seeded, episodes=3, seed=4)
    for three, four in ((np.int64(3), np.int32(4)), (3.0, 4.0), (torch.tensor(3), np.array(4))):
        assert evaluate(policy, Seeded, episodes=three, seed=four) == expected
    for wrong in (0, -2, 1.5, "3", True, None):
        with pytest.raises(ConfigError, match=r"^episodes=.*: expected an integer >= 1"):
            evaluate(policy, Seeded, episodes=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^seed=-1: expected an integer >= 0"):
        evaluate(policy, Seeded, seed=-1)


def test_a_missing_package_for_videos_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: Any, folder: str, **__: Any) -> Any:
        Path(folder).mkdir()  # as RecordVideo does first
        raise gymnasium.error.DependencyNotInstalled(
            "MoviePy is not installed, run `pip install x`"
        )

    monkeypatch.setattr(gymnasium.wrappers, "RecordVideo", missing)
    with pytest.raises(
        ConfigError,
        match=r"MoviePy is not installed; install it with `pip install \"xlstm_rl\[video\]\"`$",
    ):
        evaluate(_cartpole_policy(), episodes=1, video_dir=tmp_path / "videos")
    assert not (tmp_path / "videos").exists()


def test_a_video_folder_that_cannot_be_made_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"^video folder .*: cannot be made: Not a directory$"):
        evaluate(_cartpole_policy(), episodes=1, video_dir=tmp_path / "file" / "videos")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_mask_that_the_policy_does_not_read_is_told_once() -> None:
    class Masked(Seeded):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return super().reset(seed=seed)[0], {"action_mask": np.ones(2, np.int8)}

    policy = _policy()
    with pytest.warns(UserWarning, match=r"has 'action_mask' in its info.* does not read it"):
        evaluate(policy, Masked, episodes=2)
    evaluate(policy, Masked, episodes=2)


class Observes(gymnasium.Env[Any, Any]):
    """Observes `answer` for two steps."""

    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, dtype: Any, answer: Any) -> None:
        self.observation_space = gymnasium.spaces.Box(-1e3, 1e3, (2,), dtype)
        self.answer = answer

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.answer, {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.answer, 1.0, self.t == 2, False, {}


@pytest.mark.parametrize(
    ("dtype", "answer"),
    [
        (np.float16, np.array([0.1, 999.9])),
        (np.float32, np.array([0.1, 1 / 3])),
        (np.float32, np.array([0.1, 1 / 3], ">f8")),
        (np.float32, [1, 2]),
        (np.int16, np.array([1, 2])),
    ],
)
def test_observations_reach_the_policy_in_the_type_of_their_space(
    dtype: Any, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = Observes(dtype, answer)
    policy = _policy(observation=env.observation_space)
    seen: list[Any] = []
    act = policy.act
    monkeypatch.setattr(policy, "act", lambda obs, *rest: seen.append(obs) or act(obs, *rest))
    evaluate(policy, env, episodes=1)
    # what Gymnasium's vectors, and so training, make of the answer
    vector = gymnasium.vector.SyncVectorEnv([lambda: Observes(dtype, answer)])
    expected, _ = vector.reset(seed=0)
    assert len(seen) == 2 and all(obs.dtype == dtype for obs in seen)
    np.testing.assert_array_equal(seen[0], expected)


@pytest.mark.parametrize("number", [np.nan, -np.inf, 1e39])
def test_observations_that_are_not_finite_as_float32_are_refused(number: float) -> None:
    env = Observes(np.float64, np.array([0.0, number]))
    with pytest.raises(EnvError, match=r"^environment of episode 0 at step 0: .* not finite"):
        evaluate(_policy(observation=env.observation_space), env, episodes=1)


def test_a_callback_sees_every_step_of_every_episode_and_the_memory() -> None:
    steps: list[Any] = []
    policy = _cartpole_policy()
    result = evaluate(policy, episodes=3, seed=2, on_step=steps.append)
    for episode, length in enumerate(result.lengths):
        own = [step for step in steps if step.episode == episode]
        assert [step.step for step in own] == list(range(length))
        assert [step.terminated or step.truncated for step in own] == [False] * (length - 1) + [
            True
        ]
        assert sum(step.reward for step in own) == result.returns[episode]
        # The steps alone are enough to choose the same actions again.
        state = policy.initial_state(1, critic=False)
        for step in own:
            action, state = policy.act(step.observation[None], state)
            assert action[0] == step.action
            for key, value in state.items():
                torch.testing.assert_close(step.state[key], value, rtol=1e-4, atol=1e-5)


def test_a_callback_that_raises_stops_the_evaluation_and_closes_the_environments() -> None:
    class Closes(Seeded):
        closed = 0

        def close(self) -> None:
            type(self).closed += 1

    def fail(step: Any) -> None:
        raise RuntimeError(f"enough at {step.episode}")

    with pytest.raises(RuntimeError, match=r"^enough at 0$"):
        evaluate(_policy(), Closes, episodes=2, on_step=fail)
    assert Closes.closed == 2


def test_an_agent_stands_for_its_policy() -> None:
    agent = RecurrentPPO("CartPole-v1", logger={"kind": "none"}, memory={"kind": "gru"})
    assert evaluate(agent, episodes=2) == evaluate(agent.policy, episodes=2)
    with pytest.raises(ConfigError, match=r"got a str as the policy, expected a policy"):
        evaluate("runs/demo")  # type: ignore[arg-type]


def test_a_result_says_in_one_line_how_actions_were_chosen() -> None:
    result = evaluate(_policy(), Seeded, episodes=5, seed=3)
    low, high = result.interval() or (0.0, 0.0)
    assert low < result.mean < high
    assert "over 5 episodes with most probable actions, 95 % interval [" in repr(result)
    sampled = evaluate(_policy(), Seeded, episodes=1, deterministic=False)
    assert sampled.interval() is None and not sampled.deterministic
    assert "over 1 episode with sampled actions (min" in str(sampled)
