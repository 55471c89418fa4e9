"""What a sequence gives: the numbers of its steps, from the states that are stored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torchrl.modules import set_recurrent_mode

from xlstm_rl import XLSTMModule


def _module(memory: dict[str, Any], **options: Any) -> XLSTMModule:
    return XLSTMModule(
        4, memory, in_key="observation", out_key="embed", default_recurrent_mode=True, **options
    )


def _stepping(module: XLSTMModule) -> Any:
    return set_recurrent_mode(False)


@pytest.mark.parametrize(
    ("init", "stored"), [(0.0, 0.0), (0.2, 0.0), (0.2, 0.5), (0.2, 1.0), (1.0, 0.5), (1.0, 0.0)]
)
@pytest.mark.each_value
def test_sequence_equals_steps_from_stored_states(
    memory: dict[str, Any], sequences: Any, init: float, stored: float
) -> None:
    module = _module(memory).double()
    batch = sequences.batch(module, 3, 13, init=init, stored=stored).double()
    batch["is_init"] = batch["is_init"].bool()
    with _stepping(module):
        y, after = sequences.steps(module, batch)
    out = module(batch)
    torch.testing.assert_close(out["embed"], y)
    ends = sequences.ends(batch)
    torch.testing.assert_close(out["next", "recurrent_state"], after * ends)


@pytest.mark.parametrize("stored", [0.0, 0.5, 1.0])
def test_without_gradients_a_sequence_is_the_same_and_its_input_stays(
    memory: dict[str, Any], sequences: Any, stored: float
) -> None:
    module = _module(memory).double()
    batch = sequences.batch(module, 3, 13, init=0.3, stored=stored).double()
    batch["is_init"] = batch["is_init"].bool()
    expected, given = module(batch.clone()), batch.clone()
    with torch.no_grad():
        out = module(batch)
    for key in ("embed", ("next", "recurrent_state")):
        torch.testing.assert_close(out[key], expected[key], rtol=0, atol=1e-12)
    assert (batch.select(*given.keys()) == given).all()


def test_states_of_two_sequences_share_no_memory(xlstm: dict[str, Any], sequences: Any) -> None:
    module = _module(xlstm)
    batch = sequences.batch(module, 2, 5, init=0.3)
    one, other = (module(batch.clone())["next", "recurrent_state"] for _ in range(2))
    before = other.clone()
    one.detach().fill_(7.0)
    assert (other == before).all()


@pytest.mark.parametrize("stored", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("of_stored", [False, True])
def test_gradients_equal_those_of_steps(
    xlstm: dict[str, Any], sequences: Any, stored: float, of_stored: bool
) -> None:
    module = _module(xlstm).double()
    batch = sequences.batch(module, 3, 13, init=0.2, stored=stored).double()
    batch["is_init"] = batch["is_init"].bool()
    batch["observation"].requires_grad_()
    inputs = [batch["observation"], *module.parameters()]
    if of_stored:
        inputs.append(batch["recurrent_state"].requires_grad_())
    with _stepping(module):
        y, after = sequences.steps(module, batch)
    weight = torch.randn_like(y)
    expected = torch.autograd.grad((y * weight).sum() + after[:, -1].sum(), inputs)
    out = module(batch)
    last = out["next", "recurrent_state"][:, -1]
    found = torch.autograd.grad((out["embed"] * weight).sum() + last.sum(), inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_row_starts_from_its_stored_state_even_at_is_init(
    xlstm: dict[str, Any], sequences: Any
) -> None:
    module = _module(xlstm)
    batch = sequences.batch(module, 2, 5, stored=1.0)
    marked = batch.clone()
    marked["is_init"][:, 0] = True
    torch.testing.assert_close(module(marked)["embed"], module(batch)["embed"])


def test_step_at_is_init_starts_from_zeros(memory: dict[str, Any], sequences: Any) -> None:
    module = _module(memory)
    batch = sequences.batch(module, 5, stored=1.0)
    batch["is_init"][::2] = True
    fresh = batch.clone()
    fresh["recurrent_state"][::2] = 0
    fresh["is_init"][:] = False
    with _stepping(module):
        one, other = module(batch), module(fresh)
    torch.testing.assert_close(one["embed"], other["embed"])
    state = ("next", "recurrent_state")
    torch.testing.assert_close(one[state], other[state])


def test_consecutive_windows_equal_one_sequence(xlstm: dict[str, Any], sequences: Any) -> None:
    module = _module(xlstm)
    batch = sequences.batch(module, 2, 40)
    batch["is_init"][:, 13] = True
    whole = module(batch.clone())
    first = module(batch[:, :20].clone())
    second = batch[:, 20:].clone()
    second["recurrent_state"][:, 0] = first["next", "recurrent_state"][:, -1]
    second = module(second)
    both = torch.cat((first["embed"], second["embed"]), 1)
    torch.testing.assert_close(both, whole["embed"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(7,), (2, 7), (2, 3, 7), (2, 3, 4, 7)])
def test_time_is_the_last_of_any_number_of_batch_dims(
    xlstm: dict[str, Any], sequences: Any, shape: tuple[int, ...]
) -> None:
    module = _module(xlstm)
    batch = sequences.batch(module, *shape, init=0.2, stored=0.5)
    out = module(batch.clone())
    flat = module(batch.reshape(-1, 7))
    assert out["embed"].shape == (*shape, 8)
    torch.testing.assert_close(out["embed"].reshape(-1, 7, 8), flat["embed"])
    state = out["next", "recurrent_state"]
    assert state.shape == (*shape, module.layout.size)
    torch.testing.assert_close(
        state.reshape(-1, 7, state.shape[-1]), flat["next", "recurrent_state"]
    )


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (2, 3, 4)])
def test_step_changes_the_state_at_any_batch_shape(
    memory: dict[str, Any], sequences: Any, shape: tuple[int, ...]
) -> None:
    module = _module(memory)
    batch = sequences.batch(module, *shape)
    with _stepping(module):
        out = module(batch)
    after = out["next", "recurrent_state"]
    assert after.shape == (*shape, module.layout.size)
    assert out["embed"].shape == (*shape, 8)
    assert bool((after != 0).any(-1).all()) == (memory.get("kind") != "mlp")


@pytest.mark.parametrize("steps", [1, 10])
def test_flags_without_a_last_dimension_are_taken(
    xlstm: dict[str, Any], sequences: Any, steps: int
) -> None:
    module = _module(xlstm)
    batch = sequences.batch(module, 3, steps, init=0.3)
    flat = batch.clone()
    flat["is_init"] = batch["is_init"].squeeze(-1)
    torch.testing.assert_close(module(flat)["embed"], module(batch)["embed"])


def test_strides_of_input_and_state_do_not_matter(xlstm: dict[str, Any], sequences: Any) -> None:
    module = _module(xlstm)
    batch = sequences.batch(module, 3, 6, init=0.3, stored=0.7)
    turned = TensorDict(
        {
            key: batch[key].transpose(0, 1).contiguous().transpose(0, 1)
            for key in ("observation", "is_init")
        },
        batch_size=(3, 6),
    )
    state = batch["recurrent_state"]
    turned["recurrent_state"] = state.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not turned["recurrent_state"].is_contiguous()
    torch.testing.assert_close(module(turned)["embed"], module(batch)["embed"])
    with _stepping(module):
        torch.testing.assert_close(module(turned)["embed"], module(batch)["embed"])


def test_padding_after_the_end_changes_nothing_before_it(
    xlstm: dict[str, Any], sequences: Any
) -> None:
    module = _module(xlstm)
    batch = sequences.batch(module, 2, 9)
    padded = torch.cat((batch, torch.zeros_like(batch)), 1)
    torch.testing.assert_close(module(padded)["embed"][:, :9], module(batch)["embed"])


def test_equal_slices_one_after_the_other_are_one_call_of_the_memory(
    xlstm: dict[str, Any], sequences: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = _module(xlstm)
    batch = sequences.batch(module, 4, 5, stored=1.0)
    batch["is_init"][:, 0] = True
    expected = module(batch.clone())
    seen: list[tuple[int, ...]] = []
    run = module.memory.forward_tensors

    def watch(x: torch.Tensor, *rest: Any) -> Any:
        seen.append(tuple(x.shape))
        return run(x, *rest)

    monkeypatch.setattr(module.memory, "forward_tensors", watch)
    flat = module(batch.reshape(-1))
    assert seen == [(4, 5, 8)]
    torch.testing.assert_close(flat["embed"].view(4, 5, 8), expected["embed"])


def test_resets_to_zeros_are_one_call_of_the_memory(
    xlstm: dict[str, Any], sequences: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = _module(xlstm, sequence_states="last")
    batch = sequences.batch(module, 4, 30, init=0.3)
    calls: list[int] = []
    run = module.memory.forward_tensors
    monkeypatch.setattr(
        module.memory, "forward_tensors", lambda *args: (calls.append(1), run(*args))[1]
    )
    out = module(batch)
    assert len(calls) == 1
    assert not out["next", "recurrent_state"][:, :-1].any()


@pytest.mark.parametrize("stored", [0.0, 0.5, 1.0])
def test_last_states_are_those_of_the_last_step_alone(
    xlstm: dict[str, Any], sequences: Any, stored: float
) -> None:
    module = _module(xlstm)
    batch = sequences.batch(module, 3, 13, init=0.3, stored=stored)
    full = module(batch.clone())["next", "recurrent_state"]
    module.sequence_states = "last"
    found = module(batch)["next", "recurrent_state"]
    torch.testing.assert_close(found[:, -1], full[:, -1])
    assert not found[:, :-1].any()


@pytest.mark.parametrize("stored", [0.0, 0.5, 1.0])
def test_without_states_a_sequence_gives_the_same_output_and_leaves_them_as_they_were(
    xlstm: dict[str, Any], sequences: Any, stored: float
) -> None:
    module = _module(xlstm)
    batch = sequences.batch(module, 3, 13, init=0.3, stored=stored)
    full = module(batch.clone())
    module.sequence_states = "none"
    found = module(batch.clone())
    torch.testing.assert_close(found["embed"], full["embed"])
    assert ("next", "recurrent_state") not in found.keys(True)
    collected = torch.randn_like(batch["recurrent_state"])
    found = module(batch.set(("next", "recurrent_state"), collected))
    assert found["next", "recurrent_state"] is collected
    with set_recurrent_mode(False):
        step = module(batch[:, 0].exclude("next"))
    assert step["next", "recurrent_state"].any()


def test_state_is_taken_apart_and_put_together(xlstm: dict[str, Any]) -> None:
    module = _module(xlstm)
    state = module.memory.initial_state(3)
    state.apply_(lambda one: one.normal_())
    packed = module.pack_state(state)
    assert packed.shape == (3, module.layout.size)
    found = module.unpack_state(packed)
    assert (found == state).all()


def test_half_precision_keeps_its_state_in_float32(xlstm: dict[str, Any], sequences: Any) -> None:
    module = _module(xlstm).bfloat16()
    batch = sequences.batch(module, 2, 6, init=0.3)
    batch["observation"] = batch["observation"].bfloat16()
    out = module(batch)
    assert out["embed"].dtype == torch.bfloat16
    assert out["next", "recurrent_state"].dtype == torch.float32
    assert module.make_tensordict_primer().primers["recurrent_state"].dtype == torch.float32
