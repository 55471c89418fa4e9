"""Random streams: unrelated for neighbouring seeds and for the purposes of one seed."""

import os
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.vector import NormalizeReward, RecordEpisodeStatistics

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.seeding import Purpose, reset_seed, spawn_seed

SMALL: dict[str, Any] = {
    "memory": {"width": 16, "num_heads": 2},
    "agent": {"rollout_steps": 8, "epochs": 2, "minibatches": 1},
    "logger": {"kind": "none"},
}
PURPOSES: tuple[Purpose, ...] = (
    "weights",
    "environments",
    "actions",
    "shuffling",
    "evaluation",
    "evaluation_actions",
)


def test_seeds_of_any_run_purpose_and_index_differ_and_fit_31_bits() -> None:
    seeds = [spawn_seed(s, p, i) for s in range(20) for p in PURPOSES for i in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
    assert max(seeds) > 2**30  # none of the bits lies idle


def test_a_seed_is_a_child_of_numpys_seed_sequence() -> None:
    child = np.random.SeedSequence(7).spawn(2)[1].spawn(4)[3]
    assert spawn_seed(7, "environments", 3) == child.generate_state(1)[0] >> 1


class Seen(gymnasium.Env[Any, Any]):
    """Writes down the seeds that it is reset with; its episodes last two steps."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    seeds: list[int | None]  # set by whoever wants to know

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.seeds.append(seed)
        self.t = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        observation = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return observation, float(action), self.t == 2, False, {}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seeds: list[int] = []
    monkeypatch.setattr(Seen, "seeds", seeds, raising=False)
    return seeds


def test_neighbouring_seeds_and_evaluation_share_no_episode(seen: list[int]) -> None:
    found: list[list[int]] = []
    for seed in (0, 1, 2):
        agent = RecurrentPPO(Seen, seed=seed, env={"num_envs": 4}, **SMALL).learn(32)
        found.append(seen.copy())
        seen.clear()
        for episodes in (5, 9):
            evaluate(agent.policy, Seen, episodes=episodes, seed=seed)
            found.append(seen.copy())
            seen.clear()
    training, five, nine = found[::3], found[1::3], found[2::3]
    assert [len(seeds) for seeds in training] == [4, 4, 4]
    # an episode has its seed, however many are played
    assert [seeds[:5] for seeds in nine] == five
    streams = [seed for seeds in (*training, *nine) for seed in seeds]
    assert len(set(streams)) == len(streams) == 3 * (4 + 9)


def test_first_weights_actions_and_shuffling_have_streams_of_their_own() -> None:
    def streams(seed: int) -> list[tuple[float, ...]]:
        agent = RecurrentPPO("CartPole-v1", seed=seed, env={"num_envs": 2}, **SMALL)
        generators = [agent.sample_generator, agent.shuffle_generator]
        return [tuple(torch.rand(4, generator=one).tolist()) for one in generators]

    found = [stream for seed in (0, 1, 2) for stream in streams(seed)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("wrap", [lambda env: env, RecordEpisodeStatistics, NormalizeReward])
def test_every_environment_of_a_vector_has_a_seed_of_its_own(seen: list[int], wrap: Any) -> None:
    env = wrap(SyncVectorEnv([Seen] * 3))
    RecurrentPPO(env, seed=5, **SMALL).learn(24)
    assert seen == [spawn_seed(5, "environments", index) for index in range(3)]


class OneSeed(VectorEnv[Any, Any, Any]):
    """A vector that takes one integer, as `VectorEnv.reset` has it, and counts on from it."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self) -> None:
        self.num_envs = 3
        self.single_observation_space = Seen.observation_space
        self.single_action_space = Seen.action_space
        self.observation_space = batch_space(self.single_observation_space, 3)
        self.action_space = batch_space(self.single_action_space, 3)
        self.came: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.came.append(seed)
        return np.zeros((3, 2), np.float32), {}

    def step(self, actions: Any) -> Any:
        flags = np.zeros(3, bool)
        return np.zeros((3, 2), np.float32), np.zeros(3), flags, flags, {}


class AddsOne(VectorWrapper):
    """Somebody's wrapper that computes with the seed."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.env.reset(seed=None if seed is None else seed + 1, options=options)


def test_a_vector_that_takes_one_integer_gets_one() -> None:
    env = OneSeed()
    RecurrentPPO(env, seed=5, **SMALL).learn(24)
    (seed,) = env.came
    assert type(seed) is int and seed >= 0 and seed + 2 < 2**31
    others = [reset_seed(OneSeed(), other) for other in (4, 6)]
    assert all(abs(seed - other) > 3 for other in others)  # type: ignore[operator]


def test_a_wrapper_that_computes_with_the_seed_gets_an_integer(seen: list[int]) -> None:
    RecurrentPPO(AddsOne(SyncVectorEnv([Seen] * 3)), seed=5, **SMALL).learn(24)
    first = reset_seed(AddsOne(SyncVectorEnv([Seen] * 3)), 5)
    assert isinstance(first, int) and seen == [first + 1, first + 2, first + 3]


_RUN = """
from xlstm_rl import RecurrentPPO, evaluate
agent = RecurrentPPO(
    "xlstm_rl/RepeatPrevious-v0",
    seed=3,
    env={"num_envs": 4},
    memory={"width": 16, "num_heads": 2},
    agent={"rollout_steps": 16, "epochs": 2, "minibatches": 2},
    logger={"kind": "none"},
).learn(128)
result = evaluate(agent.policy, episodes=3, seed=3, deterministic=False)
print([p.double().sum().item().hex() for p in agent.parameters], result.returns)
"""


def test_a_seed_gives_the_same_run_in_another_process_bit_for_bit() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", _RUN],
            capture_output=True,
            text=True,
            check=True,
            # strings, and so the order of sets, are hashed differently in each of the two
            env={**os.environ, "PYTHONHASHSEED": str(number)},
        ).stdout
        for number in (1, 2)
    ]
    assert runs[0] == runs[1] and len(runs[0]) > 100
