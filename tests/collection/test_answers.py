"""Answers of vector environments in other forms: taken where their meaning is plain, else named."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper

from xlstm_rl import RecurrentPPO
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.envs import MemoryChainVectorEnv
from xlstm_rl.errors import EnvError

Make = Callable[[AutoresetMode], SyncVectorEnv]
Change = Callable[[list[Any]], Any]
MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]
SAME_STEP = AutoresetMode.SAME_STEP


class Answers(VectorWrapper):
    """Lets a function change what the steps answer, and another what the resets do."""

    def __init__(self, env: Any, step: Change, reset: Change = tuple) -> None:
        super().__init__(env)
        self.tensors = getattr(env, "tensors", False)
        self.change_step, self.change_reset = step, reset

    def step(self, actions: Any) -> Any:
        return self.change_step(list(self.env.step(actions)))

    def reset(self, **kwargs: Any) -> Any:
        return self.change_reset(list(self.env.reset(**kwargs)))


def _collect(env: Any) -> list[Rollout]:
    agent = RecurrentPPO(
        env,
        memory={"kind": "gru", "width": 8},
        policy={"previous_reward": True},
        agent={"rollout_steps": 12, "minibatches": 1, "epochs": 1},
        logger={"kind": "none"},
    )
    collector = agent._make_collector()
    return [collector.collect(), collector.collect()]


def _part(place: int, change: Callable[[Any], Any]) -> Change:
    def apply(answer: list[Any]) -> Any:
        answer[place] = change(answer[place])
        return tuple(answer)

    return apply


def _flags(change: Callable[[Any], Any]) -> Change:
    def apply(answer: list[Any]) -> Any:
        answer[2], answer[3] = change(answer[2]), change(answer[3])
        return tuple(answer)

    return apply


def _infos_in_a_list(name: str) -> Change:
    """As before Gymnasium 0.26 and as in stable-baselines3."""

    def apply(answer: list[Any]) -> Any:
        info = answer[-1]
        rows: list[dict[str, Any]] = [{} for _ in range(3)]
        for row in range(3):
            if "final_obs" in info and info["_final_obs"][row]:
                rows[row][name] = info["final_obs"][row]
        return (*answer[:-1], rows)

    return apply


def _renamed(answer: list[Any]) -> Any:
    info = answer[4]
    for old, new in (("final_obs", "final_observation"), ("_final_obs", "_final_observation")):
        if old in info:
            info[new] = info.pop(old)
    return tuple(answer)


def _stacked(answer: list[Any]) -> Any:
    info = answer[4]
    if "final_obs" in info:
        rows = [np.zeros(2, np.float32) if one is None else one for one in info["final_obs"]]
        info["final_obs"] = np.stack(rows)
    return tuple(answer)


PLAIN: dict[str, Change] = {
    "flags as uint8": _flags(lambda x: x.astype(np.uint8)),
    "flags as floats": _flags(lambda x: x.astype(np.float64)),
    "flags as a list": _flags(lambda x: x.tolist()),
    "flags in a column": _flags(lambda x: x[:, None]),
    "flags as tensors": _flags(torch.from_numpy),
    "rewards in a column": _part(1, lambda x: x[:, None]),
    "rewards as a list": _part(1, list),
    "rewards as integers": _part(1, lambda x: x.astype(np.int32)),
    "rewards as tensors": _part(1, torch.from_numpy),
    "a list": list,
    "a list of infos": _infos_in_a_list("terminal_observation"),
    "a list of infos, newer": _infos_in_a_list("final_observation"),
    "the older name": _renamed,
    "final observations in one array": _stacked,
    "a read-only observation": _part(0, lambda x: np.broadcast_to(x, x.shape)),
    "a fortran observation": _part(0, np.asfortranarray),
    "a big-endian observation": _part(0, lambda x: x.astype(">f4")),
    "a long double observation": _part(0, lambda x: x.astype(np.longdouble)),
    "an observation of unsigned integers": _part(0, lambda x: x.astype(np.uint32)),
}


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("form", PLAIN)
@pytest.mark.each_value
def test_another_form_of_the_same_answer_gives_the_same_rollout(
    countdown_vector: Make, form: str, mode: AutoresetMode
) -> None:
    ours = _collect(Answers(countdown_vector(mode), PLAIN[form]))
    for rollout, expected in zip(ours, _collect(countdown_vector(mode)), strict=True):
        assert rollout.data["truncated"].any()
        assert rollout.episode_returns == expected.episode_returns
        for name, column in expected.data.items(True, True):
            assert torch.equal(rollout.data[name], column), name


def _without(key: str) -> Change:
    def apply(answer: list[Any]) -> Any:
        answer[4].pop(key, None)
        return tuple(answer)

    return apply


def _spoil_final(spoil: Callable[[Any, int], None]) -> Change:
    def apply(answer: list[Any]) -> Any:
        for row in np.flatnonzero(answer[3]):
            spoil(answer[4], int(row))
        return tuple(answer)

    return apply


def _unmark(info: Any, row: int) -> None:
    info["_final_obs"][row] = False


def _empty(info: Any, row: int) -> None:
    info["final_obs"][row] = None
    del info["_final_obs"]


def _shorten(info: Any, row: int) -> None:
    info["final_obs"][row] = info["final_obs"][row][:1]


MALFORMED: dict[str, tuple[Change, str]] = {
    "four values": (
        lambda answer: (*answer[:2], answer[2] | answer[3], answer[4]),
        "step 0: step returned 4 values, expected observation, reward, terminated, truncated and",
    ),
    "nothing": (lambda _: None, "step 0: step returned nothing, expected observation"),
    "a flag that is neither": (
        _flags(lambda x: x * 3.0),
        r"environment \d: t\w+ is .*3\.0.*, expected true or false",
    ),
    "flags of text": (
        _flags(lambda x: np.where(x, "yes", "no")),
        "step 0: environment 0: terminated is .*no.*, expected true or false",
    ),
    "one flag for all": (_flags(lambda x: x.any()), r"terminated has shape \[\], expected \[3\]"),
    "too many rewards": (
        _part(1, lambda x: np.stack([x, x], 1)),
        r"reward has shape \[3, 2\], expected \[3\]: one for each environment",
    ),
    "rewards of text": (_part(1, lambda x: x.astype(str)), "reward has dtype <U.*, expected 3"),
    "ragged rewards": (_part(1, lambda x: [[1.0], [1.0, 2.0], 0.0]), "reward cannot be read as an"),
    "no info": (_part(4, lambda _: "fine"), "info is one str, expected a dict of arrays, or a lis"),
    "masked observations": (
        _part(0, lambda x: np.ma.masked_greater(x, 0.5)),
        "observation is a masked array with masked entries: fill them",
    ),
    "objects": (_part(0, lambda x: x.astype(object)), "the observation has dtype object"),
    "complex": (_part(0, lambda x: x + 1j), "the observation has dtype complex64"),
    "no final_obs": (
        _without("final_obs"),
        r"step 6: info has no 'final_obs', the last observation of the truncated environment 2",
    ),
    "no final_obs of one": (_spoil_final(_unmark), r"step 6: info\['final_obs'\] has nothing of"),
    "None for final_obs": (_spoil_final(_empty), "has nothing of environment 2, which was trunc"),
    "a short final_obs": (
        _spoil_final(_shorten),
        r"environment 2: in info\['final_obs'\], the observation of 1 environments has shape",
    ),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_what_has_no_plain_meaning_is_named_in_one_line(countdown_vector: Make, fault: str) -> None:
    change, message = MALFORMED[fault]
    with pytest.raises(EnvError, match=message) as caught:
        _collect(Answers(countdown_vector(SAME_STEP), change))
    assert "\n" not in str(caught.value)


def test_a_reset_in_the_old_form_is_named(countdown_vector: Make) -> None:
    env = Answers(countdown_vector(SAME_STEP), tuple, lambda answer: answer[0])
    with pytest.raises(EnvError, match="step 0: reset returned one ndarray, expected observation"):
        _collect(env)


def test_a_final_observation_that_only_terminated_may_be_missing() -> None:
    class Ends(gymnasium.Env[Any, Any]):
        observation_space, action_space = spaces.Box(-9, 9, (2,)), spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return np.zeros(2, np.float32), {}

        def step(self, action: Any) -> Any:
            return np.ones(2, np.float32), 1.0, True, False, {}

    env = SyncVectorEnv([Ends] * 2, autoreset_mode=SAME_STEP)
    assert _collect(Answers(env, _without("final_obs")))[0].episode_lengths == [1] * 24


# ---------------------------------------------------------------- environments on tensors


def _chain(mode: AutoresetMode = SAME_STEP, **kwargs: Any) -> MemoryChainVectorEnv:
    return MemoryChainVectorEnv(
        3, length=4, tensors=True, max_episode_steps=3, autoreset_mode=mode, **kwargs
    )


PLAIN_TENSORS: dict[str, Change] = {
    "flags as uint8": _flags(lambda x: x.byte()),
    "flags as floats": _flags(lambda x: x.float()),
    "flags in a column": _flags(lambda x: x[:, None]),
    "rewards in a column": _part(1, lambda x: x[:, None]),
    "rewards as float64": _part(1, lambda x: x.double()),
    "rewards as an array": _part(1, lambda x: x.numpy()),
    "the older name": _renamed,
}


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("form", PLAIN_TENSORS)
@pytest.mark.each_value
def test_another_form_on_tensors_gives_the_same_rollout(form: str, mode: AutoresetMode) -> None:
    ours = _collect(Answers(_chain(mode), PLAIN_TENSORS[form]))
    for rollout, expected in zip(ours, _collect(_chain(mode)), strict=True):
        assert rollout.episode_returns == expected.episode_returns
        for name, column in expected.data.items(True, True):
            assert torch.equal(rollout.data[name], column), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_flags(lambda x: x * 3.0), "environment 0 answered numbers other than 0 and 1 for term"),
        (_flags(lambda x: x[:2]), r"terminated has shape \[2\] and dtype torch.bool, expected \["),
        (_part(1, lambda _: "1"), "reward is a str, expected a tensor, since .* has tensors=True"),
        (_without("final_obs"), r"step 6: info has no 'final_obs', the last .* environment 0"),
        (lambda answer: answer[:4], "step returned 4 values"),
    ],
)
def test_malformed_tensors_are_named(change: Change, message: str) -> None:
    with pytest.raises(EnvError, match=message):
        _collect(Answers(_chain(), change))


def test_an_environment_may_write_its_next_observation_over_the_last() -> None:
    """In DISABLED mode the final observation is read after the reset that follows it."""

    class InPlace(VectorWrapper):
        tensors = True

        def __init__(self, env: Any) -> None:
            super().__init__(env)
            self.memory = torch.zeros(3, 3)

        def reset(self, **kwargs: Any) -> Any:
            observation, info = self.env.reset(**kwargs)
            return self.memory.copy_(observation), info

        def step(self, actions: Any) -> Any:
            observation, *rest = self.env.step(actions)
            return self.memory.copy_(observation), *rest

    ours = _collect(InPlace(_chain(AutoresetMode.DISABLED)))
    for rollout, expected in zip(ours, _collect(_chain(AutoresetMode.DISABLED)), strict=True):
        assert rollout.data["truncated"].any()
        assert torch.equal(rollout.data["next_value"], expected.data["next_value"])
