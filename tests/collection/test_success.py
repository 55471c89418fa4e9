"""`info["is_success"]` at the end of an episode becomes `episode/success`."""

import math
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.collection.infos import successes
from xlstm_rl.envs import MemoryChainVectorEnv

MODES = ["same_step", "next_step", "disabled"]

pytestmark = pytest.mark.usefixtures("forked")

FORMS: dict[str, Any] = {
    "bool": bool,
    "NumPy's bool": np.bool_,
    "integer": int,
    "float": float,
    "array": lambda flag: np.array([flag], np.float32),
    "array without axes": lambda flag: np.array(flag),
    "tensor": torch.tensor,
}


class Tries(gymnasium.Env[Any, Any]):
    """Every third episode succeeds; each has three steps, the even ones are cut.

    A reset, and the steps before the last, say the opposite.
    """

    observation_space, action_space = spaces.Box(-9, 9, (2,)), spaces.Discrete(2)

    def __init__(self, form: Any = bool, silent: bool = False) -> None:
        self.form, self.silent, self.episode, self.t = form, silent, 0, 0

    def _info(self, over: bool) -> dict[str, Any]:
        if self.silent and self.episode % 2 == 0:
            return {}
        return {"is_success": self.form((self.episode % 3 == 0) == over)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.zeros(2, np.float32), self._info(False)

    def step(self, action: Any) -> Any:
        self.t += 1
        over, cut = self.t == 3, self.episode % 2 == 0
        return np.zeros(2, np.float32), 1.0, over and not cut, over and cut, self._info(over)


def _agent(env: Any, **section: Any) -> RecurrentPPO:
    return RecurrentPPO(
        env,
        env=section,
        memory={"kind": "gru", "width": 8},
        agent={"rollout_steps": 32, "minibatches": 1, "epochs": 1},
        logger={"kind": "none"},
    )


def _said(env: Any, **section: Any) -> list[float]:
    agent = _agent(env, **section)
    collector = agent._make_collector()
    rollouts: list[Rollout] = [collector.collect(), collector.collect()]
    agent.close()
    return [one for rollout in rollouts for one in rollout.episode_successes]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", FORMS)
def test_every_episode_counts_what_its_last_step_says(form: str, mode: str) -> None:
    said = _said(lambda: Tries(FORMS[form]), num_envs=2, autoreset=mode)
    episodes = (64 if mode != "next_step" else 48) // 3
    # both environments in step: episode 3, 6, ... of each succeeds
    assert said == [float(e % 3 == 0) for e in range(1, episodes + 1) for _ in range(2)]


@pytest.mark.parametrize("mode", MODES)
def test_in_processes_too(mode: str) -> None:
    said = _said(Tries, num_envs=2, autoreset=mode, vectorization="async")
    assert said[:6] == [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("mode", MODES)
def test_episodes_that_do_not_say_are_left_out(mode: str) -> None:
    said = _said(lambda: Tries(silent=True), num_envs=1, autoreset=mode)
    odd = range(1, (64 if mode != "next_step" else 48) // 3 + 1, 2)
    assert said == [float(episode % 3 == 0) for episode in odd]


def test_the_metric_is_the_mean_and_there_once_an_episode_has_said_it() -> None:
    found: list[dict[str, float]] = []
    agent = _agent(Tries, num_envs=1)
    agent.learn(64, on_update=lambda steps, metrics: found.append(metrics))
    assert found[0]["episode/success"] == 3 / 10  # episodes 1 to 10
    assert found[1]["episode/success"] == 7 / 21
    agent = _agent("CartPole-v1", num_envs=1)
    agent.learn(64, on_update=lambda steps, metrics: found.append(metrics))
    assert "episode/success" not in found[-1]


# --------------------------------------------------------------- vectors of the user's own


class Says(VectorWrapper):
    """Adds to the infos of a native form, whose episodes have five steps, who succeeded."""

    def __init__(self, env: VectorEnv[Any, Any, Any], form: str) -> None:
        super().__init__(env)
        self.tensors, self.may_truncate = getattr(env, "tensors", False), False
        self.form = form

    def step(self, actions: Any) -> Any:
        *answer, info = self.env.step(actions)
        value: Any = answer[2] & (torch.arange(3) != 1 if self.tensors else np.arange(3) != 1)
        over = answer[2]
        if self.form == "in a column":
            value = value[:, None]
        elif self.form == "masked":
            info = {**info, "_is_success": over}
            value = value | ~over
        elif self.form == "in final_info":
            info = {**info, "final_info": {"is_success": value, "_is_success": over}}
            value = ~value
        elif self.form == "in older final_info":
            rows = [
                {"is_success": bool(one)} if end else None
                for one, end in zip(value, over, strict=True)
            ]
            info = {**info, "final_info": np.array(rows, dtype=object)}
            value = ~value
        elif self.form == "as floats":
            value = value * 1.0
        return *answer, {**info, "is_success": value}


VECTOR_FORMS = ["plain", "in a column", "masked", "in final_info", "as floats"]


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name)
@pytest.mark.parametrize(
    ("form", "tensors"),
    [
        *[(form, tensors) for form in VECTOR_FORMS for tensors in (False, True)],
        ("in older final_info", False),
    ],
)
@pytest.mark.each_value
def test_vectors_say_it_for_all_at_once(form: str, tensors: bool, mode: AutoresetMode) -> None:
    env = MemoryChainVectorEnv(3, length=4, tensors=tensors, autoreset_mode=mode)
    ends = 64 // 5 if mode != AutoresetMode.NEXT_STEP else 64 // 6
    assert _said(Says(env, form)) == [1.0, 0.0, 1.0] * ends


@pytest.mark.parametrize(
    "value",
    ["yes", None, 5, {"a": 1}, [True], np.ones((2, 3)), np.array(["1", "0"]), [2.0, np.nan], (1,)],
    ids=repr,
)
def test_what_is_no_success_is_left_out(value: Any) -> None:
    found = successes({"is_success": value}, np.array([True, True]))
    assert found is None or not np.isfinite(found[1])


class Adds(VectorWrapper):
    """Adds to every info of a native form, whose episodes have five steps."""

    def __init__(self, added: dict[str, Any], tensors: bool, **kwargs: Any) -> None:
        super().__init__(MemoryChainVectorEnv(3, length=4, tensors=tensors, **kwargs))
        self.tensors, self.may_truncate, self.added = tensors, False, added

    def step(self, actions: Any) -> Any:
        *answer, info = self.env.step(actions)
        return *answer, {**info, **self.added}


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name)
@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ({"is_success": [5.0, 0.5, -1.0]}, [0.5]),
        ({"is_success": [1.0, torch.nan, 0.0]}, [1.0, 0.0]),
        ({"is_success": [1j, 1.0, 0.0]}, []),
        ({"is_success": [True, True, False], "_is_success": [True, False, True]}, [1.0, 0.0]),
    ],
)
@pytest.mark.each_value
def test_what_counts_does_not_depend_on_where_it_lies(
    added: dict[str, Any], expected: list[float], tensors: bool, mode: AutoresetMode
) -> None:
    for make in (torch.tensor, np.array) if tensors else (np.array,):
        info = {key: make(values) for key, values in added.items()}
        if tensors and "_is_success" in info:
            info["_is_success"] = np.array(added["_is_success"])
        ends = 64 // 5 if mode != AutoresetMode.NEXT_STEP else 64 // 6
        assert _said(Adds(info, tensors, autoreset_mode=mode)) == expected * ends


@pytest.mark.parametrize("tensors", [False, True])
def test_numbers_of_an_info_keep_their_digits(tensors: bool) -> None:
    values = [2.0**24 + 1, 1e300, -0.1]
    score = torch.tensor(values, dtype=torch.float64) if tensors else np.array(values)
    agent = _agent(Adds({"score": score}, tensors), info_keywords=["score"])
    assert agent._make_collector().collect().episode_infos == {"score": values * 6}


@pytest.mark.parametrize("tensors", [False, True])
def test_returns_are_sums_of_the_rewards_as_they_came(tensors: bool) -> None:
    class Pays(Adds):
        def step(self, actions: Any) -> Any:
            observation, _, *rest = super().step(actions)
            amounts = torch.tensor([2.0**24 + 1, 0.1, 1.0], dtype=torch.float64)
            return observation, amounts if tensors else amounts.numpy(), *rest

    rollout = _agent(Pays({}, tensors))._make_collector().collect()
    assert rollout.episode_returns[:3] == pytest.approx([5 * (2**24 + 1), 0.5, 5.0], rel=1e-15)


def test_no_step_looks_at_it_on_tensors(looking_is_an_error: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    env = Says(MemoryChainVectorEnv(3, length=4, tensors=True), "masked")
    collector = _agent(env)._make_collector()
    step = collector._step

    def watched(*args: Any) -> None:
        with looking_is_an_error():
            step(*args)

    collector._step = watched  # type: ignore[method-assign]
    assert collector.collect().episode_successes == [1.0, 0.0, 1.0] * 6


# --------------------------------------------------------------------- action masks


class Offers(Tries):
    """Offers a mask that nobody reads."""

    def _info(self, over: bool) -> dict[str, Any]:
        return {"action_mask": np.array([1, 0], np.int8)}


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_that_is_not_read_is_told_once(mode: str) -> None:
    agent = _agent(Offers, num_envs=2, autoreset=mode)
    with pytest.warns(UserWarning, match=r"'action_mask' in its info.*policy\.action_mask to 'inf"):
        agent.learn(64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.learn(64)
        evaluate(agent.policy, Offers, episodes=2)
    other = _agent(Offers, num_envs=2, autoreset=mode)
    with pytest.warns(UserWarning, match="action_mask"):
        evaluate(other.policy, Offers, episodes=2)


def test_a_mask_that_is_read_and_none_at_all_are_not_told() -> None:
    agent = RecurrentPPO(
        Offers,
        env={"num_envs": 2},
        policy={"action_mask": "info"},
        memory={"kind": "gru", "width": 8},
        agent={"rollout_steps": 32, "minibatches": 1, "epochs": 1},
        logger={"kind": "none"},
    )
    agent.learn(64)
    _agent(Tries, num_envs=1).learn(32)


def test_the_clock_may_be_coarse(monkeypatch: Any) -> None:
    found: list[float] = []
    monkeypatch.setattr("time.perf_counter", lambda: 7.0)
    agent = _agent(Tries, num_envs=1)
    agent.learn(32, on_update=lambda steps, metrics: found.append(metrics["time/sps"]))
    assert math.isfinite(found[0])
