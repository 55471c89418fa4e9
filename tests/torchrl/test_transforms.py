"""The module under `torch.compile` and the transforms of `torch.func`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict, from_modules
from torch.func import vmap
from torchrl.modules import set_recurrent_mode

from xlstm_rl import XLSTMModule
from xlstm_rl.versions import installed_version

from .conftest import MEMORIES

STATE, AFTER = "recurrent_state", ("next", "recurrent_state")


def _module(memory: dict[str, Any], **options: Any) -> XLSTMModule:
    return XLSTMModule(4, memory, in_key="observation", out_key="embed", **options)


def _assert_same(found: TensorDict, expected: TensorDict) -> None:
    for key in ("embed", AFTER):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("stored", [0.0, 1.0])
def test_vmap_over_the_weights_of_several_modules(
    memory: dict[str, Any], sequences: Any, recurrent: bool, stored: float
) -> None:
    modules = [_module(memory, default_recurrent_mode=recurrent) for _ in range(2)]
    weights = from_modules(*modules, as_module=True)
    empty = modules[0]
    batch = sequences.batch(empty, 3, 9, init=0.3, stored=stored)

    def call(one: TensorDict, params: Any) -> TensorDict:
        with params.to_module(empty):
            return empty(one)

    found = vmap(call, (None, 0), randomness="different")(batch.clone(), weights.data)
    for i, module in enumerate(modules):
        _assert_same(found[i], module(batch.clone()))


@pytest.mark.parametrize("stored", [0.0, 1.0])
@pytest.mark.parametrize("states", ["ends", "last", "none"])
@pytest.mark.each_value
def test_vmap_over_the_data_too(
    stateful: dict[str, Any], sequences: Any, stored: float, states: str
) -> None:
    module = _module(stateful, default_recurrent_mode=True, sequence_states=states)
    batch = sequences.batch(module, 2, 3, 9, init=0.3, stored=stored)
    found = vmap(module)(batch.clone())
    if states == "none":
        torch.testing.assert_close(found["embed"], module(batch)["embed"])
        assert "next" not in found.keys(True)
    else:
        _assert_same(found, module(batch))


@pytest.mark.skipif(
    installed_version("torch") < (2, 9), reason="torch 2.8 under torch.func.grad makes no lists"
)
def test_gradients_of_a_function(xlstm: dict[str, Any], sequences: Any) -> None:
    module = _module(xlstm, default_recurrent_mode=True)
    batch = sequences.batch(module, 3, 9, init=0.3)
    weights = {name: weight.detach() for name, weight in module.named_parameters()}

    def loss(params: dict[str, torch.Tensor]) -> torch.Tensor:
        out = torch.func.functional_call(module, params, (batch.clone(),))
        return out["embed"].square().sum()

    found = torch.func.grad(loss)(weights)
    module(batch.clone())["embed"].square().sum().backward()
    for name, weight in module.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, rtol=1e-3, atol=1e-4)


# torch.compile asks so itself of what goes from one of its graphs to the next
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("stored", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
@pytest.mark.parametrize(
    "stateful",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("transformer", "mamba2", "rwkv")))
        for name in MEMORIES
        if name != "mlp"
    ],
    indirect=True,
)
@pytest.mark.few(2)
def test_compiled_sequence_with_resets(
    stateful: dict[str, Any], sequences: Any, stored: float
) -> None:
    if stateful.get("kind") == "rwkv" and installed_version("torch") < (2, 9):
        pytest.skip("torch 2.8 takes a gradient's strides for others while it compiles rwkv")
    torch.compiler.reset()
    module = _module(stateful)
    compiled = torch.compile(module, backend="aot_eager")
    for init in (0.0, 0.3):
        batch = sequences.batch(module, 3, 9, init=init, stored=stored)
        with set_recurrent_mode(True):
            expected, found = module(batch.clone()), compiled(batch.clone())
        _assert_same(found, expected)
        addresses = [tensor.untyped_storage().data_ptr() for tensor in found.values(True, True)]
        assert len(set(addresses)) == len(addresses)  # no output is another's memory
        found["embed"].square().sum().backward()


def test_compiled_step_is_one_graph(xlstm: dict[str, Any], sequences: Any) -> None:
    torch.compiler.reset()
    module = _module(xlstm)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    batch = sequences.batch(module, 3, init=0.5, stored=1.0)
    with torch.no_grad():
        _assert_same(compiled(batch.clone()), module(batch.clone()))
