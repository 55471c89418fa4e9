"""What a tensordict has to hold, and the errors that name what is missing or wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import LazyStackedTensorDict, TensorDict

from .conftest import make_batch, make_module


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("is_init", r"'is_init' is missing.*torchrl.envs.InitTracker\(\)"),
        ("recurrent_state", r"'recurrent_state' is missing.*make_tensordict_primer\(\)"),
        ("observation", "'observation' is not among the keys"),
    ],
)
def test_missing_key_names_the_transform(key: str, words: str, recurrent: bool) -> None:
    module = make_module(default_recurrent_mode=recurrent)
    with pytest.raises(KeyError, match=words):
        module(make_batch(module, 3, 5).exclude(key))


def test_missing_init_key_of_ones_own_is_named() -> None:
    module = make_module(in_keys=["observation", "recurrent_state", "first"])
    with pytest.raises(KeyError, match=r"InitTracker\(init_key='first'\)"):
        module(make_batch(module, 3))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("observation", torch.zeros(3, 5, 3), r"shape \[3, 5, 3\], expected \[3, 5, 4\]"),
        ("observation", torch.zeros(3, 5, 4).double(), r"DoubleToFloat\(\)"),
        ("recurrent_state", torch.zeros(3, 5, 9), r"expected \[3, 5, 8\].*different state keys"),
        ("observation", torch.zeros(3, 5, 4).byte(), "dtype torch.uint8, expected"),
        ("recurrent_state", torch.zeros(3, 5), r"shape \[3, 5\], expected \[3, 5, 8\]"),
        ("recurrent_state", torch.zeros(3, 5, 8).long(), "torch.int64, expected a floating-point"),
        ("recurrent_state", torch.zeros(3, 5, 8).bool(), "torch.bool, expected a floating-point"),
        ("recurrent_state", torch.zeros(3, 5, 8).cfloat(), "complex64, expected a floating-point"),
        ("is_init", torch.zeros(3, 5, 2).bool(), r"expected \[3, 5, 1\] or \[3, 5\]"),
        ("is_init", torch.full((3, 5, 1), 0.5), r"torch.float32, expected torch.bool.*\.bool\(\)"),
        ("is_init", torch.full((3, 5, 1), 2), "torch.int64, expected torch.bool"),
    ],
)
@pytest.mark.parametrize("recurrent", [False, True])
def test_wrong_shape_or_dtype_is_refused(
    key: str, value: torch.Tensor, words: str, recurrent: bool
) -> None:
    module = make_module(default_recurrent_mode=recurrent)
    with pytest.raises(ValueError, match=words):
        module(make_batch(module, 3, 5).set(key, value))


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("key", ["observation", "recurrent_state", "is_init"])
@pytest.mark.parametrize("value", ["words", TensorDict({"a": torch.zeros(3, 5)}, [3, 5])])
def test_entry_that_is_no_tensor_is_refused(key: str, value: Any, recurrent: bool) -> None:
    module = make_module(default_recurrent_mode=recurrent)
    batch = make_batch(module, 3, 5)
    batch[key] = value
    with pytest.raises(ValueError, match=rf"{key!r} is a \w+, expected a tensor") as caught:
        module(batch)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("key", ["observation", "recurrent_state", "is_init"])
def test_entry_on_another_device_is_named(key: str, recurrent: bool) -> None:
    module = make_module(default_recurrent_mode=recurrent)
    batch = make_batch(module, 3, 5)
    words = rf"{key!r} is on meta, expected the device of the weights, cpu.*\.to\('cpu'\)"
    with pytest.raises(ValueError, match=words):
        module(batch.set(key, batch[key].to("meta")))


def test_time_has_to_be_the_last_dimension() -> None:
    module = make_module(default_recurrent_mode=True)
    batch = make_batch(module, 5, 3)
    batch.names = ["time", None]
    with pytest.raises(
        ValueError, match=r"\['time', None\], expected 'time' last.*transpose\(0, -1"
    ):
        module(batch)
    module(batch.transpose(0, -1).contiguous())


def test_rows_of_different_lengths_are_refused() -> None:
    module = make_module(default_recurrent_mode=True)
    rows = LazyStackedTensorDict(make_batch(module, 5), make_batch(module, 6), stack_dim=0)
    with pytest.raises(ValueError, match=r"\[2, -1\], expected rows of one length.*pad_sequence"):
        module(rows)


@pytest.mark.parametrize("recurrent", [False, True])
def test_under_autocast_the_input_may_be_what_a_layer_before_made(
    memory: dict[str, Any], recurrent: bool
) -> None:
    module = make_module(memory, default_recurrent_mode=recurrent)
    batch = make_batch(module, 3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        expected = module(batch.clone())
        found = module(batch.set("observation", batch["observation"].bfloat16()))
    after = ("next", "recurrent_state")
    assert found[after].dtype == torch.float32
    torch.testing.assert_close(found[after], expected[after], rtol=0.1, atol=0.1)
    torch.testing.assert_close(
        found["embed"].float(), expected["embed"].float(), rtol=0.1, atol=0.1
    )


def test_missing_part_of_a_nested_key_is_named() -> None:
    module = make_module(in_keys=[("agent", "observation"), ("agent", "memory")])
    with pytest.raises(KeyError, match=r"\('agent', 'observation'\) is not among .*'agent'"):
        module(TensorDict({"agent": torch.zeros(3)}, [3]))
    agent = TensorDict({"observation": torch.zeros(3, 4)}, [3])
    with pytest.raises(KeyError, match=r"the state \('agent', 'memory'\) is missing"):
        module(TensorDict({"agent": agent}, [3]))
    other = TensorDict({"seen": torch.zeros(3, 4)}, [3])
    with pytest.raises(KeyError, match="seen"):
        module(TensorDict({"agent": other}, [3]))
