"""The keys, modes and errors of the module, as TorchRL has them for its own."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch import nn
from torchrl.envs import Compose
from torchrl.modules import GRUModule, recurrent_mode, set_recurrent_mode
from torchrl.modules.utils import get_primers_from_module

from xlstm_rl import MemoryConfig, XLSTMModule, make_memory

from .conftest import make_batch, make_module, torchrl_014


def test_the_package_imports_without_torchrl() -> None:
    code = "import sys, xlstm_rl, xlstm_rl.policy.policy; print('torchrl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_tensors_by_name_give_tensors() -> None:
    module = make_module()
    y, state = module(
        observation=torch.randn(4), recurrent_state=torch.zeros(8), is_init=torch.zeros(1).bool()
    )
    assert y.shape == (8,) and state.shape == (8,)


def test_without_states_a_sequence_of_tensors_gives_the_output_alone() -> None:
    module = make_module(sequence_states="none", default_recurrent_mode=True)
    batch = make_batch(module, 3, 5)
    given = {key: batch[key] for key in module.in_keys}
    assert module(**given).shape == (3, 5, 8)
    with set_recurrent_mode(False):
        assert [one.shape for one in module(**given)] == [(3, 5, 8), (3, 5, 8)]
    with pytest.raises(ValueError, match="sequence_states='all': expected one of"):
        module.sequence_states = "all"  # type: ignore[assignment]


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("key", ["embed", ("next", "recurrent_state")])
def test_one_output_may_be_selected(key: Any, recurrent: bool) -> None:
    module = make_module(default_recurrent_mode=recurrent)
    batch = make_batch(module, 3, 5)
    expected = module(batch.clone())[key]
    module.select_out_keys(key)
    found = module(batch.clone())
    torch.testing.assert_close(found[key], expected)
    assert ("embed" in found) == (key == "embed")
    assert list(module.make_tensordict_primer().primers.keys()) == ["recurrent_state"]
    module.reset_out_keys()
    assert "embed" in module(batch)


def test_sequence_without_data_has_its_shapes(memory: dict[str, Any]) -> None:
    module = make_module(memory, default_recurrent_mode=True).to("meta")
    out = module(make_batch(module, 3, 5).to("meta"))
    assert out["embed"].shape == (3, 5, 8) and out["embed"].is_meta
    assert out["next", "recurrent_state"].shape == (3, 5, module.layout.size)


def test_memory_may_be_options_a_configuration_or_a_memory() -> None:
    config = MemoryConfig(kind="lstm", width=8)
    memory = make_memory(config)
    assert type(make_module(config).memory) is type(memory)
    assert make_module(memory).memory is memory
    assert XLSTMModule(64, in_key="a", out_key="b").memory.width == MemoryConfig().width


def test_input_of_the_memorys_width_needs_no_layer() -> None:
    assert not list(
        XLSTMModule(8, {"kind": "gru", "width": 8}, in_key="a", out_key="b").projection.parameters()
    )
    assert make_module().projection.weight.shape == (8, 4)


@pytest.mark.parametrize("size", [0, 2.5, None])
def test_wrong_input_size_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match=r"input_size=.*expected an integer >= 1"):
        XLSTMModule(size, in_key="a", out_key="b")


def test_memory_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"memory=.*expected a MemoryConfig"):
        make_module("xlstm")


def test_recurrent_mode_needs_a_time_dimension() -> None:
    module = make_module(default_recurrent_mode=True)
    with pytest.raises(ValueError, match=r"no batch dimension, expected \[\*batch, T\]"):
        module(make_batch(module))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5)])
def test_empty_batch_is_refused(shape: tuple[int, ...]) -> None:
    module = make_module(default_recurrent_mode=True)
    with pytest.raises(ValueError, match="there is nothing in it"):
        module(make_batch(module, *shape))


@pytest.mark.parametrize("default", [False, True, None])
def test_mode_is_that_of_the_context_or_the_default(default: bool | None) -> None:
    module = make_module(default_recurrent_mode=default)
    assert module.recurrent_mode is bool(default)
    with set_recurrent_mode("recurrent"):
        assert module.recurrent_mode
        with set_recurrent_mode(False):
            assert not module.recurrent_mode
        with set_recurrent_mode("sequential"):
            assert not module.recurrent_mode
        with set_recurrent_mode(None):
            assert module.recurrent_mode is bool(default)
        assert module.recurrent_mode
    assert module.recurrent_mode is bool(default)
    assert recurrent_mode() is None


@torchrl_014("has one mode for all threads")
def test_mode_of_another_thread_does_not_count() -> None:
    module, seen = make_module(), []
    with set_recurrent_mode(True):
        thread = threading.Thread(target=lambda: seen.append(module.recurrent_mode))
        thread.start()
        thread.join()
    assert seen == [False]


def test_mode_cannot_be_assigned() -> None:
    with pytest.raises(RuntimeError, match="set_recurrent_mode"):
        make_module().recurrent_mode = True


def test_state_key_that_does_not_lead_to_itself_has_no_primer() -> None:
    module = make_module(out_keys=["embed", ("next", "other")])
    with pytest.raises(RuntimeError, match="written to"):
        module.make_tensordict_primer()


@torchrl_014("has no canonicalize_rnn_subset")
def test_canonical_layout_covers_its_keys() -> None:
    from torchrl.modules import canonicalize_rnn_subset

    module = make_module()
    batch = make_batch(module, 3, 5)
    batch["observation"] = torch.randn(5, 3, 4).transpose(0, 1)
    found = canonicalize_rnn_subset(batch, [module])
    assert found["observation"].is_contiguous()
    assert not batch["observation"].is_contiguous()
    torch.testing.assert_close(found["observation"], batch["observation"])


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copy_acts_alike(memory: dict[str, Any], copy_of: Any, sequences: Any) -> None:
    module = make_module(memory)
    batch = sequences.batch(module, 3)
    module(batch.clone())
    found, expected = copy_of(module)(batch.clone()), module(batch)
    torch.testing.assert_close(found["embed"], expected["embed"])


def test_two_modules_give_two_primers(xlstm: dict[str, Any]) -> None:
    ours = XLSTMModule(
        4, xlstm, in_keys=["observation", "critic"], out_keys=["value", ("next", "critic")]
    )
    theirs = GRUModule(input_size=4, hidden_size=8, in_key="observation", out_key="embed")
    primers = get_primers_from_module(nn.ModuleList([ours, theirs]))
    assert isinstance(primers, Compose)
    keys = {key for one in primers for key in one.primers.keys(True, True)}
    assert keys == {"critic", "recurrent_state"}


@torchrl_014("has no strict=False")
def test_a_primer_that_fails_is_named_and_the_others_stay(xlstm: dict[str, Any]) -> None:
    good = XLSTMModule(4, xlstm, in_key="observation", out_key="embed")
    bad = XLSTMModule(4, xlstm, in_key="observation", out_keys=["value", "elsewhere"])
    with pytest.raises(RuntimeError, match="written to"):
        get_primers_from_module(nn.ModuleList([good, bad]))
    with pytest.warns(UserWarning, match="XLSTMModule"):
        primer = get_primers_from_module(nn.ModuleList([good, bad]), strict=False)
    assert list(primer.primers.keys(True, True)) == ["recurrent_state"]
