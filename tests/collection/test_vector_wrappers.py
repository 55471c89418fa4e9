"""Gymnasium's own vector wrappers work around the native forms, and training through them."""

import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import vector as wrappers

import xlstm_rl.envs  # noqa: F401
from xlstm_rl import RecurrentPPO
from xlstm_rl.envs import EnvConfig, make_vector_env

NATIVE = sorted(
    name
    for name, spec in gymnasium.registry.items()
    if name.startswith("xlstm_rl/") and spec.vector_entry_point is not None
)
MODES = ["same_step", "next_step", "disabled"]
COUNTS_SAME_STEP = "SAME_STEP" in inspect.getsource(wrappers.RecordEpisodeStatistics)
"""Older versions of Gymnasium leave out the first step after a reset in the same step."""

CHAIN = "xlstm_rl/MemoryChain-v0"
# Before 1.4 Gymnasium's statistics take every episode's end for one of NEXT_STEP's, whose first
# step does not count.
OLD = tuple(map(int, gymnasium.__version__.split(".")[:2])) < (1, 4)
COUNTED = ["next_step", "disabled"] if OLD else MODES


def _native(name: str, mode: str, limit: int | None = 7) -> VectorEnv[Any, Any, Any]:
    config = EnvConfig(name, 4, "native", autoreset=mode, max_episode_steps=limit)  # type: ignore[arg-type]
    return make_vector_env(config)


@pytest.mark.parametrize("mode", COUNTED)
@pytest.mark.parametrize("name", NATIVE)
def test_record_episode_statistics_counts_the_episodes_of_a_native_form(
    name: str, mode: str
) -> None:
    env = wrappers.RecordEpisodeStatistics(_native(name, mode))
    env.reset(seed=3)
    env.action_space.seed(3)
    returns, lengths = np.zeros(4), np.zeros(4, int)
    over, seen = np.zeros(4, bool), 0
    for _ in range(40):
        if mode == "disabled" and over.any():
            env.reset(options={"reset_mask": over})
        skipped = over if mode == "next_step" else np.zeros(4, bool)
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert observation in env.observation_space
        assert reward.shape == terminated.shape == truncated.shape == (4,)
        assert not reward[skipped].any() and not (terminated | truncated)[skipped].any()
        returns, lengths = returns + reward, lengths + ~skipped
        over = terminated | truncated
        if not over.any():
            assert "episode" not in info and "final_obs" not in info
            continue
        assert info["_episode"].tolist() == over.tolist()
        if mode != "same_step" or COUNTS_SAME_STEP:
            assert info["episode"]["r"][over] == pytest.approx(returns[over])
            assert info["episode"]["l"][over].tolist() == lengths[over].tolist()
        if mode == "same_step":
            assert info["_final_obs"].tolist() == over.tolist()
            for row in range(4):
                final = info["final_obs"][row]
                assert final in env.single_observation_space if over[row] else final is None
        else:
            assert "final_obs" not in info
        seen += int(over.sum())
        returns[over], lengths[over] = 0.0, 0
    assert seen >= 12 and env.episode_count == seen


Wrap = Callable[[Any], Any]
SAME: dict[str, tuple[Wrap, list[str]]] = {
    "RecordEpisodeStatistics": (wrappers.RecordEpisodeStatistics, MODES),
    "DictInfoToList": (wrappers.DictInfoToList, MODES),
    "TransformReward": (lambda env: wrappers.TransformReward(env, lambda r: r * 1.0), MODES),
    "ClipReward": (lambda env: wrappers.ClipReward(env, -99.0, 99.0), MODES),
    "TransformAction": (
        lambda env: wrappers.TransformAction(env, lambda a: a, env.action_space),
        MODES,
    ),
    "TransformObservation": (
        lambda env: wrappers.TransformObservation(env, lambda x: x * 1.0),
        MODES[1:],  # by its own words
    ),
    "two of them": (
        lambda env: wrappers.ClipReward(wrappers.RecordEpisodeStatistics(env), -99.0, 99.0),
        MODES,
    ),
}
CHANGING: dict[str, tuple[Wrap, list[str]]] = {
    "NormalizeObservation": (wrappers.NormalizeObservation, ["next_step"]),
    "NormalizeReward": (wrappers.NormalizeReward, MODES),
    "FlattenObservation": (wrappers.FlattenObservation, MODES[1:]),
}


def _agent(env: Any) -> RecurrentPPO:
    return RecurrentPPO(
        env,
        memory={"kind": "gru", "width": 8},
        agent={"rollout_steps": 16, "minibatches": 1, "epochs": 1},
        logger={"kind": "none"},
    )


def _cases(table: dict[str, tuple[Wrap, list[str]]]) -> list[tuple[str, str]]:
    return [(name, mode) for name, (_, modes) in table.items() for mode in modes]


@pytest.mark.parametrize(("wrapper", "mode"), _cases(SAME))
def test_a_wrapper_that_changes_nothing_changes_no_rollout(wrapper: str, mode: str) -> None:
    wrapped = _agent(SAME[wrapper][0](_native(CHAIN, mode)))._make_collector()
    plain = _agent(_native(CHAIN, mode))._make_collector()
    for _ in range(2):
        ours, expected = wrapped.collect(), plain.collect()
        assert expected.data["truncated"].any()
        assert ours.episode_returns == expected.episode_returns
        assert ours.episode_lengths == expected.episode_lengths
        for name, column in expected.data.items(True, True):
            assert torch.equal(ours.data[name], column), name


@pytest.mark.parametrize(("wrapper", "mode"), _cases(CHANGING))
def test_other_wrappers_are_trained_through(wrapper: str, mode: str) -> None:
    env = CHANGING[wrapper][0](_native(CHAIN, mode))
    assert isinstance(env.single_observation_space, spaces.Box)
    found: list[dict[str, float]] = []
    _agent(env).learn(256, on_update=lambda steps, metrics: found.append(metrics))
    assert len(found) == 4 and found[-1]["episode/length"] == 7.0
    assert all(np.isfinite(value) for value in found[-1].values())
