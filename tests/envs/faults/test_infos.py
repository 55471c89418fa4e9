"""Infos of any keys and values, merged into those of a vector and trained through."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.envs.faults.infos import merge_info

MODES = ["same_step", "next_step", "disabled"]

pytestmark = pytest.mark.usefixtures("forked")


class Thing:
    """An object that only its author understands."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing)

    def __hash__(self) -> int:
        return 0


INFOS: dict[str, list[dict[Any, Any]]] = {
    "numbers and text under one key": [{"a": 1}, {"a": "long"}, {"a": 0.5}],
    "arrays of different shapes": [{"a": np.zeros(2)}, {"a": np.zeros(3)}, {"a": np.zeros(())}],
    "a dict beside a number": [{"a": {"b": 1}}, {"a": 2}, {"a": {"b": "x", "c": [1]}}],
    "None, lists, objects": [{"a": None}, {"a": [1, 2]}, {"a": Thing()}],
    "keys of other types": [{1: 2, "1": "x"}, {(0, 1): 5}, {None: None, 2.5: True}],
    "names of masks": [{"_a": 3, "a": 1}, {"a": 1}, {"_a": "x", "__a": np.ones(2)}],
    "a mask of the user's own": [{"_action": [1, 2]}, {"_action": None}, {"action": 1}],
    "the vector's own names": [{"final_obs": 1}, {"final_info": "x"}, {"_final_obs": "y"}],
    "final_obs that looks right": [{"final_obs": np.full(3, 7.0), "final_info": {"a": 1}}] * 3,
    "huge numbers": [{"a": 2**70}, {"a": 1}, {"a": 1e300}],
    "deep dicts": [{"a": {"b": {"c": {"d": 1}}}}, {"a": {"b": 3}}, {"a": {"b": {"c": None}}}],
    "numpy scalars": [{"a": np.bool_(True)}, {"a": np.float32(1)}, {"a": np.datetime64("2020")}],
    "a success that is none": [{"is_success": "yes"}, {"is_success": {"a": 1}}, {}],
    "text of growing length": [{"a": np.array("x")}, {"a": np.array("xyz")}, {"a": "x"}],
    "empty": [{}, {"a": {}}, {"": 1}],
}


class Talks(gymnasium.Env[Any, Any]):
    """Says one info after another; episodes are cut after three steps, in which it sees 1, 2, 3."""

    observation_space, action_space = spaces.Box(-9, 9, (3,)), spaces.Discrete(2)

    def __init__(self, infos: list[dict[Any, Any]]) -> None:
        self.infos, self.count, self.t = infos, 0, 0

    def _answer(self) -> tuple[Any, dict[Any, Any]]:
        self.count += 1
        return np.full(3, self.t, np.float32), self.infos[self.count % len(self.infos)]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._answer()

    def step(self, action: Any) -> Any:
        self.t += 1
        observation, info = self._answer()
        return observation, 1.0, False, self.t == 3, info


def _agent(make: Any, mode: str, vectorization: str = "sync") -> RecurrentPPO:
    return RecurrentPPO(
        make,
        env={"num_envs": 3, "autoreset": mode, "vectorization": vectorization},
        memory={"kind": "gru", "width": 8},
        agent={"rollout_steps": 12, "minibatches": 1, "epochs": 1},
        logger={"kind": "none"},
    )


def _next_values(make: Any, mode: str, vectorization: str = "sync") -> Any:
    agent = _agent(make, mode, vectorization)
    rollout = agent._make_collector().collect()
    agent.close()
    assert rollout.episode_lengths and set(rollout.episode_lengths) == {3}
    assert rollout.data["truncated"].any()
    return rollout.data["next_value"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("infos", INFOS)
@pytest.mark.each_value
def test_whatever_is_in_the_infos_training_goes_as_without_them(infos: str, mode: str) -> None:
    made: list[int] = []

    def make() -> Talks:
        made.append(1)  # every environment begins with another info
        return Talks(INFOS[infos][len(made) % 3 :] + INFOS[infos])

    assert torch.equal(_next_values(make, mode), _next_values(lambda: Talks([{}]), mode))


@pytest.mark.parametrize("mode", MODES)
def test_so_it_goes_in_processes(mode: str) -> None:
    everything = [info for infos in INFOS.values() for info in infos]
    expected = _next_values(lambda: Talks([{}]), mode)
    assert torch.equal(_next_values(lambda: Talks(everything), mode, "async"), expected)


def test_evaluation_goes_through_all_of_them() -> None:
    everything = [info for infos in INFOS.values() for info in infos]
    agent = _agent(lambda: Talks([{}]), "same_step")
    assert evaluate(agent.policy, lambda: Talks(everything), episodes=9).lengths == [3] * 9


# ------------------------------------------------------------- the merged info itself


PLAIN = [
    {"a": 1, "b": 0.5, "c": np.arange(3), "d": {"e": True, "f": {"g": "x"}}, "h": None, "i": "y"},
    {},
    {"a": 3, "c": np.ones(3, int), "d": {"f": {"g": "z"}}, "h": [1], "i": "longer", "b": 1.5},
]


def _same(ours: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert ours.keys() == expected.keys()
        for key, value in expected.items():
            _same(ours[key], value)
    else:
        assert ours.dtype == expected.dtype and ours.tolist() == expected.tolist()


def test_infos_that_gymnasium_can_merge_are_merged_as_it_does() -> None:
    vector = SyncVectorEnv([lambda: Talks([{}])] * 3)
    ours: dict[Any, Any] = {}
    expected: dict[Any, Any] = {}
    for row, info in enumerate(PLAIN):
        merge_info(ours, info, row, 3)
        expected = vector._add_info(expected, info, row)
    _same(ours, expected)


def _merged(*infos: dict[Any, Any]) -> dict[Any, Any]:
    merged: dict[Any, Any] = {}
    for row, info in enumerate(infos):
        merge_info(merged, info, row, len(infos))
    return merged


def test_a_number_is_not_cut_off_to_the_type_of_another() -> None:
    assert _merged({"a": 0}, {"a": 0.5}, {"a": True})["a"].tolist() == [0.0, 0.5, 1.0]
    assert _merged({"a": np.array("x")}, {"a": np.array("long")})["a"].tolist() == ["x", "long"]


def test_values_of_different_kinds_become_objects() -> None:
    found = _merged({"a": 1}, {}, {"a": "x"}, {"a": {"b": 2}})["a"]
    assert found.dtype == object and found.tolist() == [1, None, "x", {"b": 2}]
    found = _merged({"a": {"b": 2, "c": {"d": 1}}}, {"a": {"b": 3}}, {"a": 1})["a"]
    assert found.tolist() == [{"b": 2, "c": {"d": 1}}, {"b": 3}, 1]


def test_the_mask_of_a_key_is_a_mask_whatever_else_has_its_name() -> None:
    for infos in (
        ({"a": 1}, {"_a": "x"}, {"a": 2, "_a": 5}),
        ({"_a": "x", "a": 1}, {}, {"_a": 3, "a": 2}),
        ({"_a": True, "a": 1}, {"_a": True}, {"a": 2}),
    ):
        found = _merged(*infos)
        assert found["a"].tolist() == [1, 0, 2]
        assert found["_a"].dtype == bool and found["_a"].tolist() == [True, False, True]
