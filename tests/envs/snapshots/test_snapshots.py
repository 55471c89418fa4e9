"""A snapshot is what a deep copy would hold, and goes into an environment made anew."""

import copy
import itertools
import random
import threading
from collections import OrderedDict, defaultdict, deque
from enum import Enum
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils import EzPickle

from xlstm_rl.envs import EnvConfig, make_vector_env
from xlstm_rl.envs.registration import _ENVS
from xlstm_rl.envs.snapshots.decode import read_snapshot, restore_snapshot
from xlstm_rl.envs.snapshots.encode import take_snapshot
from xlstm_rl.envs.snapshots.graph import SnapshotError

OURS = [env_id for env_id in _ENVS if "LunarLander" not in env_id]


def played(env: Any, actions: list[Any]) -> list[Any]:
    """What an environment answers, episodes begun anew where it does not by itself."""
    seen = []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        over = np.asarray(terminated | truncated)
        if env.metadata["autoreset_mode"].name == "DISABLED" and over.any():
            observation, _ = env.reset(options={"reset_mask": over})
        seen += [np.array(one) for one in (observation, reward, terminated, truncated)]
    return seen


@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
@pytest.mark.parametrize("vectorization", ["auto", "sync"])
@pytest.mark.parametrize("env_id", [*OURS, "CartPole-v1", "Acrobot-v1", "MountainCar-v0"])
@pytest.mark.each_value
def test_an_environment_goes_on_in_another_as_if_it_were_the_same(
    env_id: str, vectorization: str, mode: str
) -> None:
    config = EnvConfig(env_id, num_envs=3, vectorization=vectorization, autoreset=mode)  # type: ignore[arg-type]
    env, other = make_vector_env(config), make_vector_env(config)
    env.reset(seed=1)
    env.action_space.seed(2)
    actions = [env.action_space.sample() for _ in range(90)]
    played(env, actions[:37])
    snapshot = take_snapshot(env)
    expected = played(env, actions[37:])
    other.reset(seed=5)
    restore_snapshot(other, snapshot)
    for one, two in zip(played(other, actions[37:]), expected, strict=True):
        np.testing.assert_array_equal(one, two)


class Color(Enum):
    RED = 1
    BLUE = 2


class Part:
    """An object inside of another."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Whole:
    """Holds one of everything that a snapshot knows."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.numbers = (
            seed,
            1.5,
            -0.0,
            float("inf"),
            True,
            None,
            "text\n",
            b"\x00\xff",
            2j,
            2**200,
        )
        self.array, self.scalar = rng.normal(size=(2, 3)).astype(">f4"), np.float32(seed)
        self.empty, self.zero_d = np.empty((0, 3), np.uint16), np.array(seed)
        self.records = np.zeros(2, dtype=[("a", "<i4"), ("b", "<f8")])
        self.objects = np.array([Part(seed), None, "x"], dtype=object)
        self.tensor, self.half = torch.arange(3.0) + seed, torch.ones(2, dtype=torch.bfloat16)
        self.shared = self.also_shared = [seed]
        self.nested = {"a": [1, {2: (3,)}], 4: {5}, (6, 7): frozenset({8})}
        self.late = deque([seed, 2], maxlen=3)
        self.ordered, self.default = OrderedDict(b=1, a=seed), defaultdict(list, x=[seed])
        self.color, self.part = Color.BLUE if seed else Color.RED, Part(seed)
        self.me = self
        self.rng, self.twister = rng, np.random.Generator(np.random.MT19937(seed))
        self.legacy, self.python = np.random.RandomState(seed), random.Random(seed)
        self.torch_rng = torch.Generator().manual_seed(seed)
        self.call = max
        self.parts = [Part(one) for one in range(seed)]


def draw(whole: Whole) -> list[Any]:
    return [
        whole.rng.normal(),
        whole.twister.integers(99),
        whole.legacy.normal(),
        whole.python.random(),
        torch.rand((), generator=whole.torch_rng).item(),
    ]


def test_everything_comes_back_as_in_a_deep_copy() -> None:
    whole = Whole(3)
    draw(whole)
    expected, found = copy.deepcopy(whole), Whole()
    part = found.part
    restore_snapshot(found, take_snapshot(whole))
    assert found.numbers == whole.numbers and str(found.numbers[2]) == "-0.0"
    for name in ("array", "scalar", "empty", "zero_d", "records"):
        one, other = getattr(found, name), getattr(whole, name)
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype and type(one) is type(other)
    assert torch.equal(found.tensor, whole.tensor) and torch.equal(found.half, whole.half)
    assert found.half.dtype == torch.bfloat16
    assert found.shared is found.also_shared and found.shared == [3]
    assert found.nested == whole.nested and found.late == whole.late and found.late.maxlen == 3
    assert list(found.ordered) == ["b", "a"] and found.default["new"] == []
    assert found.color is Color.BLUE and found.me is found and found.call is max
    assert found.part is part and part.value == 3, "an object that is there is kept"
    assert [one.value for one in found.parts] == [0, 1, 2], "others are made"
    assert found.objects[0].value == 3 and found.objects[2] == "x"
    assert draw(found) == draw(expected)
    assert found.array is not whole.array


def test_a_snapshot_of_plain_values_is_read_without_an_object() -> None:
    value = {"x": np.arange(3), "y": (torch.ones(2), [None, True])}
    found = read_snapshot(take_snapshot(value))
    np.testing.assert_array_equal(found["x"], value["x"])
    assert torch.equal(found["y"][0], value["y"][0]) and found["y"][1] == [None, True]
    with pytest.raises(SnapshotError):
        read_snapshot(take_snapshot(Part(1)))


class Remade(EzPickle):
    """Whose pickle holds how it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (threading.Lock(), "Part.value is a lock"),
        (open, None),
        (memoryview(b"x"), "memoryview"),
        (threading.Thread(), "Thread"),
        ((x for x in ()), "generator"),
        ({"inside": {1: threading.Lock()}}, r"Part\.value\['inside'\]\[1\] is a lock"),
        (torch.ones(2, requires_grad=True), "with a gradient"),
    ],
)
def test_what_cannot_be_copied_is_named(value: Any, said: str | None) -> None:
    if said is None:
        take_snapshot(Part(value))
        return
    with pytest.raises(SnapshotError, match=said):
        take_snapshot(Part(value))


def test_a_pickle_that_would_lose_the_state_is_refused() -> None:
    remade = Remade()
    remade.count = 7
    found = Part(Remade())
    restore_snapshot(found, take_snapshot(Part(remade)))
    assert found.value.count == 7, "by its attributes it comes back"
    holder = Part(itertools.repeat(remade))  # which only a pickle could hold
    with pytest.raises(SnapshotError, match="how it was made"):
        take_snapshot(holder)


def test_an_object_that_is_shared_with_a_pickle_is_refused() -> None:
    shared = [1]
    for value in ((shared, itertools.repeat(shared)), (itertools.repeat(shared), shared)):
        with pytest.raises(SnapshotError, match=r"not its own|shared with"):
            take_snapshot(Part(value))


def test_pickles_are_read_with_trust_alone() -> None:
    snapshot = take_snapshot(Part(itertools.count(5)))
    found = Part(itertools.count(0))
    with pytest.raises(SnapshotError, match="trust_code=True"):
        restore_snapshot(found, snapshot)
    assert next(found.value) == 0, "nothing was changed"
    restore_snapshot(found, snapshot, trust=True)
    assert next(found.value) == 5


def test_what_does_not_fit_changes_nothing() -> None:
    class Other:
        """A class that the other object has none of."""

    snapshot = take_snapshot(Part([1, Part(2), Other(), 3]))
    found = Part([0])
    with pytest.raises(SnapshotError, match=r"object of .*Other"):
        restore_snapshot(found, snapshot)
    assert found.value == [0]
    with pytest.raises(SnapshotError, match=r"builtin.*max"):
        restore_snapshot(Part(min), take_snapshot(Part(max)))


@pytest.mark.parametrize("structure", ["", "[]", "{}", "[1]", '["object"]', '["array", 0]', "3"])
def test_damage_is_an_error_of_its_own(structure: str) -> None:
    snapshot = {**take_snapshot(Part(np.ones(3))), "structure": structure}
    found = Part(0)
    if structure == "3":
        restore_snapshot(found, snapshot)  # a value that asks for nothing
    else:
        with pytest.raises(SnapshotError):
            restore_snapshot(found, snapshot)
    assert found.value == 0
    cut = take_snapshot(Part(np.ones(3)))
    with pytest.raises(SnapshotError, match="cut off"):
        restore_snapshot(found, {**cut, "arrays": cut["arrays"][:-1]})
