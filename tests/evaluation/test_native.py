"""Episodes in an environment's own vector form: the same rules, the same scores."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.config import ConfigError
from xlstm_rl.envs import EnvConfig
from xlstm_rl.errors import EnvError
from xlstm_rl.evaluation import native
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

OBSERVATION = gymnasium.spaces.Box(-1e6, 1e6, (2,), np.float32)
ACTION = gymnasium.spaces.Discrete(2)


class Staircase(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """The n-th episode of environment b lasts `1 + (b + n) % 4` steps and pays b at each step.

    Every other one is truncated; a step that only resets pays 1000, which must not count.
    """

    def __init__(
        self, num_envs: int, mode: str, answer: float = 0.0, tensors: bool = False, **_: Any
    ) -> None:
        self.num_envs, self.mode, self.answer, self.tensors = num_envs, mode, answer, tensors
        self.single_observation_space, self.single_action_space = OBSERVATION, ACTION
        self.metadata = {"autoreset_mode": AutoresetMode[mode]}
        self.n, self.t = np.zeros(num_envs, int), np.zeros(num_envs, int)
        self.done = np.zeros(num_envs, bool)

    def _observe(self) -> Any:
        return np.stack([self.n, self.t], 1).astype(np.float32) + np.float32(self.answer)

    def _begin(self, rows: Any) -> None:
        self.n[rows] += 1
        self.t[rows] = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if options is None:
            self.n[:], self.t[:], self.done[:] = 0, 0, False
        else:
            self._begin(options["reset_mask"])
        return self._observe(), {}

    def step(self, actions: Any) -> Any:
        assert len(actions) == self.num_envs
        skipped = self.done if self.mode == "NEXT_STEP" else np.zeros_like(self.done)
        self._begin(skipped)
        self.t[~skipped] += 1
        rows = np.arange(self.num_envs)
        reward = np.where(skipped, 1000.0, rows)
        over = (self.t == 1 + (rows + self.n) % 4) & ~skipped
        truncated = over & (self.n % 2 == 1)
        self.done = over
        last, info = self._observe(), {}
        if self.mode == "SAME_STEP" and over.any():
            final = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(over):
                final[row] = last[row]
            info = {"final_obs": final, "_final_obs": over}
            self._begin(over)
        info["is_success"] = np.ones(self.num_envs)
        return self._observe(), reward, over & ~truncated, truncated, info


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gymnasium.envs.registration.EnvSpec(
        "Staircase-v0", entry_point="no:thing", vector_entry_point=Staircase
    )
    monkeypatch.setitem(gymnasium.registry, "Staircase-v0", spec)


def policy(env: EnvConfig, **options: Any) -> Policy:
    return Policy(
        OBSERVATION,
        ACTION,
        MemoryConfig(kind="gru", width=8),
        PolicyConfig(head_width=8, **options),
        NormalizationConfig(),
        env,
    )


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP", "DISABLED"])
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("options", [{}, {"previous_reward": True, "previous_action": True}])
def test_each_environment_plays_its_share_whatever_the_autoreset_mode(
    mode: str, deterministic: bool, options: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_MAX_ROWS", 4)
    env = EnvConfig("Staircase-v0", kwargs={"mode": mode})
    result = evaluate(policy(env, **options), episodes=10, deterministic=deterministic)
    # Episode e is played by environment e % 4 as its (e // 4)-th.
    lengths = [1 + (e % 4 + e // 4) % 4 for e in range(10)]
    assert result.lengths == lengths
    assert result.returns == [float(e % 4) * length for e, length in enumerate(lengths)]
    assert result.successes == [1.0] * 10
    assert result.deterministic is deterministic


@pytest.mark.usefixtures("registered")
def test_the_memory_is_fresh_at_every_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_MAX_ROWS", 4)
    made = policy(EnvConfig("Staircase-v0", kwargs={"mode": "NEXT_STEP"}))
    act, seen = made.act, []

    def spy(obs: Any, state: Any, reset: Any, *rest: Any) -> Any:
        seen.append((obs[:, 1] == 0, np.array(reset)))
        return act(obs, state, reset, *rest)

    monkeypatch.setattr(made, "act", spy)
    evaluate(made, episodes=12)
    for first, reset in seen:  # the second number that is observed is the step of the episode
        np.testing.assert_array_equal(first, reset)


@pytest.mark.usefixtures("registered")
def test_numbers_that_are_not_finite_name_the_episode() -> None:
    env = EnvConfig("Staircase-v0", kwargs={"mode": "SAME_STEP", "answer": float("nan")})
    with pytest.raises(EnvError, match=r"^environment of episode 0 at step 0: .* not finite"):
        evaluate(policy(env), episodes=3)


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("xlstm_rl/MemoryChain-v0", {"length": 5}),
        ("xlstm_rl/RepeatPrevious-v0", {}),
        ("xlstm_rl/TMaze-v0", {"length": 4}),
        ("xlstm_rl/CartPoleNoVel-v1", {}),
        ("CartPole-v1", {}),
        ("xlstm_rl/MemoryChain-v0", {"length": 5, "tensors": True}),
    ],
)
def test_native_and_single_environments_have_the_same_distribution(
    env_id: str, kwargs: dict[str, Any]
) -> None:
    agent = RecurrentPPO(
        env_id,
        env={"kwargs": kwargs, "num_envs": 2},
        memory={"kind": "gru", "width": 8},
        agent={"rollout_steps": 8, "minibatches": 1},
        logger={"kind": "none"},
    )
    single = replace(agent.config.env, vectorization="sync", kwargs={**kwargs})
    one, other = (
        evaluate(agent.policy, env, episodes=150, seed=1, deterministic=False)
        for env in (None, single)
    )
    spread = np.sqrt((one.std**2 + other.std**2) / 150)
    assert abs(one.mean - other.mean) <= 4 * spread + 1e-9
    lengths = np.std(one.lengths) + np.std(other.lengths)
    assert abs(one.mean_length - other.mean_length) <= 4 * lengths / np.sqrt(150) + 1e-9
    again = evaluate(agent.policy, episodes=150, seed=1, deterministic=False)
    assert again == one


def test_the_vector_form_is_used_where_there_is_one_and_only_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played: list[str] = []
    original = native._Rows.play

    def spy(self: Any) -> Any:
        played.append(str(self.adapter.env))
        return original(self)

    monkeypatch.setattr(native._Rows, "play", spy)
    agent = RecurrentPPO("CartPole-v1", logger={"kind": "none"}, memory={"kind": "gru"})
    evaluate(agent, episodes=2)
    evaluate(agent, "CartPole-v1", episodes=2)
    assert len(played) == 2
    evaluate(agent, episodes=1, on_step=lambda step: None)
    evaluate(agent, EnvConfig("CartPole-v1", vectorization="sync"), episodes=1)
    evaluate(agent, lambda: gymnasium.make("CartPole-v1"), episodes=1)
    wrapped = EnvConfig("CartPole-v1", wrappers={"Flicker": {"probability": 0.5}})
    evaluate(agent, wrapped, episodes=1)
    assert len(played) == 2
    with pytest.raises(ConfigError, match="observation_space"):
        evaluate(agent, "xlstm_rl/CartPoleNoVel-v1")


def test_a_limit_of_steps_holds_in_the_vector_form() -> None:
    agent = RecurrentPPO("CartPole-v1", logger={"kind": "none"}, memory={"kind": "gru"})
    assert evaluate(agent, episodes=3, max_episode_steps=2).lengths == [2, 2, 2]
