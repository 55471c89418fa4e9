"""The keys and flags of the module, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torchrl.modules import set_recurrent_mode

from .conftest import make_batch, make_module


def test_keys_by_default_are_those_of_gru_module() -> None:
    module = make_module()
    assert module.in_keys == ["observation", "recurrent_state", "is_init"]
    assert module.out_keys == ["embed", ("next", "recurrent_state")]


def test_nested_keys_and_an_init_key_of_ones_own() -> None:
    module = make_module(
        in_keys=[("agent", "observation"), ("agent", "memory"), ("agent", "first")],
        out_keys=[("agent", "embed"), ("next", "agent", "memory")],
    )
    batch = TensorDict(
        {
            "agent": TensorDict(
                {
                    "observation": torch.randn(3, 5, 4),
                    "memory": torch.zeros(3, 5, module.layout.size),
                    "first": torch.zeros(3, 5, 1, dtype=torch.bool),
                },
                batch_size=(3, 5),
            )
        },
        batch_size=(3, 5),
    )
    with set_recurrent_mode(True):
        out = module(batch)
    assert out["agent", "embed"].shape == (3, 5, 8)
    assert out["next", "agent", "memory"][:, -1].any()
    primer = module.make_tensordict_primer()
    assert list(primer.primers.keys(True, True)) == [("agent", "memory")]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"in_key": "a", "in_keys": ["a", "b"]}, ValueError, "expected one of them, and not both"),
        ({"in_key": None}, ValueError, "in_key=None and in_keys=None"),
        ({"out_key": "a", "out_keys": ["a", ("next", "b")]}, ValueError, "and not both"),
        ({"out_key": None}, ValueError, "out_key=None and out_keys=None"),
        ({"in_keys": ["a"]}, ValueError, "has 1 keys, expected those of input, state, and"),
        ({"in_keys": ["a", "b", "c", "d"]}, ValueError, "has 4 keys"),
        ({"out_keys": ["a"]}, ValueError, "has 1 keys, expected those of output and state after"),
        ({"in_keys": "ab"}, TypeError, "expected a list of keys"),
        ({"out_keys": {"a", "b"}}, TypeError, "expected a list of keys"),
        ({"in_keys": ["a", 3]}, TypeError, "expected a key"),
        ({"in_keys": ["a", ("b", 3)]}, TypeError, r"has \('b', 3\): expected a key"),
        ({"in_keys": [(), "b"]}, TypeError, r"has \(\): expected a key"),
        ({"in_key": ""}, TypeError, "in_key='': expected a key"),
        ({"in_keys": ["a", "a"]}, ValueError, r"in_keys, .*: 'a' stands there twice"),
        ({"in_keys": ["a", "b", ("b",)]}, ValueError, "'b' stands there twice"),
        ({"in_key": "is_init"}, ValueError, "'is_init' stands there twice"),
        ({"out_key": ("next", "recurrent_state")}, ValueError, r"out_keys, .* twice"),
        ({"out_key": "recurrent_state"}, ValueError, "'recurrent_state' would be overwritten"),
        ({"out_keys": ["x", "is_init"]}, ValueError, "'is_init' would be overwritten"),
    ],
)
def test_wrong_keys_are_refused(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make_module(**options)


def test_output_may_take_the_place_of_the_input() -> None:
    module = make_module(out_key="observation")
    out = module(make_batch(module, 3))
    assert out["observation"].shape == (3, 8)


@pytest.mark.parametrize("value", ["sequential", 2, 0.0])
def test_flags_are_true_or_false(value: Any) -> None:
    with pytest.raises(TypeError, match=f"default_recurrent_mode={value!r}: expected True"):
        make_module(default_recurrent_mode=value)


@pytest.mark.parametrize("value", ["end", None, True, ["ends"]])
def test_states_of_a_sequence_are_one_of_three_words(value: Any) -> None:
    words = r"sequence_states=.* expected one of 'ends', 'last', 'none'"
    with pytest.raises(ValueError, match=words):
        make_module(sequence_states=value)
