import json
import re

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium import spaces

from xlstm_rl.envs import (
    check_supported_spaces,
    describe_space,
    same_spaces,
    space_from_dict,
    space_to_dict,
)


class MyBox(spaces.Box):
    """What users derive from a space to give it a name or a method."""


class MyDiscrete(spaces.Discrete):
    """Likewise."""


class MyDict(spaces.Dict):
    """Likewise."""


VECTOR = spaces.Box(-1, 1, (3,))
CHOICE = spaces.Discrete(4)
ROUND_TRIPS = [
    spaces.Discrete(4),
    spaces.Discrete(3, start=-1),
    spaces.Box(-1, 1, (3,), np.float32),
    spaces.Box(-np.inf, np.inf, (2,), np.float32),
    spaces.Box(np.array([0.1, -np.inf, -0.0]), np.array([1 / 3, 1e-20, np.inf]), dtype=np.float64),
    spaces.Box(np.float32([0.1, -np.inf]), np.float32([np.pi, 3e38]), dtype=np.float32),
    spaces.Box(0, 255, (2, 3), np.uint8),
    spaces.Box(-(2**62), 2**62, (2,), np.int64),
    spaces.Box(0, 255, (30, 20, 3), np.uint8),
    spaces.Box(0, 1, (3,), np.bool_),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [0, 2]]),
    spaces.MultiBinary(3),
    spaces.MultiBinary([2, 2]),
    spaces.Dict(z=CHOICE, a=VECTOR),
    spaces.Dict([("z", CHOICE), ("a", spaces.Tuple([VECTOR, spaces.Dict(b=CHOICE)]))]),
    spaces.Tuple([]),
    spaces.Box(0.1, 0.7, (2,), np.float16),
    spaces.Box(np.array([0, 2**63 + 1]), np.array([2**64 - 1] * 2, np.uint64), dtype=np.uint64),
    spaces.Box(-1, 1, (), np.float32),
    spaces.Discrete(np.int64(4), start=np.int64(-1)),
    spaces.MultiDiscrete(np.array([2, 3], np.uint8), dtype=np.int32),
    spaces.MultiBinary(np.array([2, 2])),
    spaces.Dict({np.str_("a"): VECTOR, "b": CHOICE}),
]
# which Gymnasium's == tells apart from what is made anew, or whose bytes have gaps
LIKE = [
    spaces.Box(0, 1, (2,), ">f4"),
    spaces.Box(np.longdouble("0.1"), np.longdouble("inf"), (2,), np.longdouble),
    spaces.MultiBinary([3]),
    spaces.MultiBinary((2, 2)),
    MyBox(-1, 1, (3,)),
    MyDict(a=MyBox(-1, 1, (3,)), b=MyDiscrete(4)),
]


@pytest.mark.parametrize("space", ROUND_TRIPS + LIKE, ids=str)
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_space_survives_a_file_to_the_last_bit(space, form):
    data = space_to_dict(space)
    if form == "json":
        data = json.loads(json.dumps(data, allow_nan=False))
    else:
        data = yaml.safe_load(yaml.safe_dump(data))
    again = space_from_dict(data)
    assert again == space or space in LIKE
    assert same_spaces(space, again) is None
    assert same_spaces(again, space) is None
    if isinstance(space, spaces.Box) and space not in LIKE:
        assert again.low.tobytes() == space.low.tobytes()
        assert again.high.tobytes() == space.high.tobytes()


def test_other_kinds_are_not_saved():
    with pytest.raises(ValueError, match=r"Text.* cannot be saved: expected Box, Discrete"):
        space_to_dict(spaces.Dict(a=spaces.Text(3)))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "Tuple", "dtype": "float32"},
        {"type": "Text", "dtype": "float32"},
        {"type": "Dict", "spaces": [["a", {"type": "Text"}]]},
        {"type": "MultiDiscrete", "nvec": ["x"], "start": [0], "dtype": "int64"},
        {"type": "Discrete", "n": -1, "start": 0, "dtype": "int64"},
        {"type": "Box", "shape": [2], "dtype": "float32", "low": [0], "high": [1]},
        {"type": "Box", "shape": [1], "dtype": "float32", "low": ["low"], "high": [1]},
        {"type": "Box", "shape": [1], "dtype": "nonsense", "low": [0], "high": [1]},
    ],
)
def test_data_that_describe_no_space_are_refused(data):
    with pytest.raises(ValueError, match="space"):
        space_from_dict(data)


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (spaces.Discrete(4), "one of 4 choices"),
        (spaces.Discrete(4, start=1), "one of 4 choices, counted from 1"),
        (spaces.Box(-1, 1, (1,)), "1 number, float32, -1 to 1"),
        (spaces.Box(-np.inf, np.inf, (3,)), "3 numbers, float32, unbounded"),
        (spaces.Box(0, 255, (4, 5, 3), np.uint8), "4 x 5 x 3 numbers, uint8, 0 to 255"),
        (gym.make("CartPole-v1").observation_space, "4 numbers, float32, partly bounded"),
        (gym.make("MountainCar-v0").observation_space, "2 numbers, float32, bounded"),
        (spaces.MultiBinary(3), "MultiBinary(3)"),
        (
            spaces.Dict(a=CHOICE, b=spaces.Tuple([spaces.Box(-1, 1, (1,))])),
            "a: one of 4 choices; b/0: 1 number, float32, -1 to 1",
        ),
    ],
    ids=str,
)
def test_spaces_are_described_in_a_few_words(space, text):
    assert describe_space(space) == text


@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        (VECTOR, CHOICE),
        (spaces.Discrete(5), spaces.Discrete(3, start=2)),
        (spaces.Box(0, 9, (2,), np.int64), spaces.Box(-np.inf, np.inf, (2,))),
        (spaces.Box(0, 255, (2,), np.uint8), spaces.Box(-1, np.inf, (1,), np.float64)),
        (spaces.Box(0, 1, ()), spaces.Box(-1, 1, (2, 2))),
        (spaces.MultiBinary(3), spaces.MultiDiscrete([2, 3])),
        (spaces.Dict(a=VECTOR, b=spaces.Tuple([CHOICE])), spaces.Tuple([CHOICE, VECTOR])),
    ],
    ids=str,
)
def test_every_other_space_is_supported(observations, actions):
    check_supported_spaces(observations, actions)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Text(5), r"Text\(.*\) are not supported: only Box"),
        (spaces.Graph(VECTOR, None), r"Graph\(.*are not supported: only Box"),
        (spaces.Sequence(CHOICE), r"Sequence\(.*are not supported: only Box"),
        (spaces.OneOf([CHOICE, VECTOR]), r"OneOf\(.*are not supported: only Box"),
        (spaces.Box(-1, 1, (0,)), r"Box\(.*are not supported: only Box"),
        (
            spaces.Dict(a=VECTOR, b=spaces.Tuple([CHOICE, spaces.Text(5)])),
            r"are not supported, for its part 'b/1' is Text\(.*: only Box",
        ),
        (spaces.Dict(), "are not supported: there is nothing in it"),
    ],
    ids=str,
)
def test_other_spaces_are_refused_by_name(space, message):
    with pytest.raises(ValueError, match="observations of .*" + message):
        check_supported_spaces(space, CHOICE)
    with pytest.raises(
        ValueError, match="actions of .*" + message.replace("only Box", "only Discrete")
    ):
        check_supported_spaces(VECTOR, space)


def test_actions_of_whole_numbers_in_a_box_are_refused():
    with pytest.raises(ValueError, match=r"actions of Box.* only Discrete.*Box \(of floats\)"):
        check_supported_spaces(VECTOR, spaces.Box(0, 3, (2,), np.int64))


def test_two_leaves_of_one_name_are_refused():
    space = spaces.Dict({"a/b": VECTOR, "a": spaces.Dict(b=VECTOR)})
    with pytest.raises(ValueError, match="more than one leaf with the path 'a/b': rename"):
        check_supported_spaces(space, CHOICE)


@pytest.mark.parametrize(
    ("a", "b", "difference"),
    [
        (VECTOR, CHOICE, "the kind differs: 3 numbers.* against one of 4 choices"),
        (VECTOR, spaces.Box(-1, 1, (4,)), r"the shape differs: \(3,\) against \(4,\)"),
        (VECTOR, spaces.Box(-1, 1, (3,), np.float64), "the dtype differs: float32 against float64"),
        (VECTOR, spaces.Box(-1, 1.000001, (3,)), "the bounds differ"),
        (CHOICE, spaces.Discrete(5), "the n differs: 4 against 5"),
        (CHOICE, spaces.Discrete(4, start=1), "the start differs: 0 against 1"),
        (spaces.Dict(a=VECTOR), spaces.Dict(b=VECTOR), "the spaces differ"),
        (
            spaces.Dict(a=VECTOR, b=spaces.Tuple([CHOICE])),
            spaces.Dict(a=VECTOR, b=spaces.Tuple([spaces.Discrete(5)])),
            "in 'b', in 0, the n differs: 4 against 5",
        ),
        (spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([2, 4]), "the spaces differ"),
    ],
    ids=str,
)
def test_a_difference_is_told_in_one_sentence(a, b, difference):
    sentence = same_spaces(a, b)
    assert sentence is not None
    assert re.match(difference + ".*[.]$", sentence)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (spaces.MultiBinary(3), spaces.MultiBinary([3])),
        (spaces.MultiBinary((2, 3)), spaces.MultiBinary(np.array([2, 3]))),
        (VECTOR, MyBox(-1, 1, (3,))),
        (CHOICE, MyDiscrete(np.int32(4), start=np.int8(0))),
        (spaces.Dict(a=VECTOR), MyDict(a=MyBox(-1, 1, (3,)))),
        (spaces.Dict([("z", VECTOR), ("a", CHOICE)]), spaces.Dict([("a", CHOICE), ("z", VECTOR)])),
        (spaces.Box(-1, 1, (3,), ">f4"), spaces.Box(-1, 1, (3,), "<f4")),
        (spaces.Box(-1, 1, (3,), np.float64), spaces.Box(-1, 1, (3,), float)),
        (VECTOR, spaces.Box(np.array([-1, -1, -1]), np.array([1, 1, 1]), dtype=np.float32)),
        (spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete(np.array([2, 3], np.int16))),
    ],
    ids=str,
)
def test_what_is_no_difference_to_a_policy_is_none(a, b):
    assert same_spaces(a, b) is None
    assert same_spaces(b, a) is None


def test_the_parts_of_a_dict_are_compared_by_their_keys():
    a = spaces.Dict([("z", VECTOR), ("a", CHOICE)])
    b = spaces.Dict([("a", CHOICE), ("z", spaces.Box(-1, 2, (3,)))])
    assert "in 'z', the bounds differ" in same_spaces(a, b)


def test_equal_spaces_have_no_difference():
    assert same_spaces(VECTOR, spaces.Box(-1, 1, (3,))) is None
    assert same_spaces(CHOICE, spaces.Discrete(4)) is None
