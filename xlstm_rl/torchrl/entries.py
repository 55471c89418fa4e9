"""Reading what a recurrent module needs from a tensordict, with errors that name the transform."""

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor


def find_tensor(tensordict: TensorDictBase, key: NestedKey, what: str = "") -> Tensor | None:
    """Return an entry of a tensordict; None where it is missing.

    Args:
        tensordict: of any batch size.
        key: of the entry.
        what: stands before the key in errors, as "the state ".

    Raises:
        ValueError: it is no tensor.
    """
    path = (key,) if isinstance(key, str) else key
    found = tensordict
    for name in path:
        if not isinstance(found, TensorDictBase):
            return None
        found = found.get(name, None)
    if found is None or isinstance(found, Tensor):
        return found
    raise ValueError(f"{what}{key!r} is a {type(found).__name__}, expected a tensor")


def check_device(key: NestedKey, entry: Tensor, weight: Tensor) -> None:
    """Check that an entry lies where the weights lie.

    Raises:
        ValueError: it does not.
    """
    if entry.device != weight.device:
        raise ValueError(
            f"{key!r} is on {entry.device}, expected the device of the weights, {weight.device}: "
            f"call tensordict.to({str(weight.device)!r}), or module.to({str(entry.device)!r})"
        )


def check_rows(tensordict: TensorDictBase) -> None:
    """Check that a tensordict holds sequences `[*batch, T]`.

    Raises:
        ValueError: it has no batch dimension, rows of different lengths, or time is not the last.
    """
    shape = tensordict.batch_size
    if not shape:
        raise ValueError(
            "the tensordict has no batch dimension, expected [*batch, T] in recurrent mode: "
            "add the time dimension, or leave recurrent mode for a single step"
        )
    if -1 in shape:
        raise ValueError(
            f"the tensordict has batch size {list(shape)}, expected rows of one length: pad them "
            "with tensordict.pad_sequence"
        )
    names = tensordict.names
    if "time" in names[:-1]:
        raise ValueError(
            f"the dimensions of the tensordict are {names}, expected 'time' last: call "
            f"tensordict.transpose({names.index('time')}, -1)"
        )


def read_state(tensordict: TensorDictBase, key: NestedKey, size: int) -> Tensor:
    """Return the state `[*batch, size]` of a tensordict.

    Raises:
        KeyError: it is missing.
        ValueError: it has another shape, or a dtype that is not floating-point.
    """
    state = find_tensor(tensordict, key, "the state ")
    if state is None:
        raise KeyError(
            f"the state {key!r} is missing: append module.make_tensordict_primer() to the "
            "environment, or torchrl.modules.utils.get_env_transforms_from_module(policy); without "
            "it every step would start from zeros"
        )
    expected = (*tensordict.batch_size, size)
    if state.shape != expected:
        raise ValueError(
            f"the state {key!r} has shape {list(state.shape)}, expected {[*expected]}: two modules "
            "with different states need different state keys (in_keys, out_keys)"
        )
    if not state.is_floating_point():
        raise ValueError(
            f"the state {key!r} has dtype {state.dtype}, expected a floating-point one: "
            "make_tensordict_primer() gives the right one"
        )
    return state


def read_is_init(tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """Return the flags of episode starts `[*batch]` of a tensordict.

    Raises:
        KeyError: they are missing.
        ValueError: they have another shape or dtype.
    """
    flags = find_tensor(tensordict, key)
    if flags is None:
        named = "" if key == "is_init" else f"init_key={key!r}"
        raise KeyError(
            f"{key!r} is missing, which marks where episodes start: append "
            f"torchrl.envs.InitTracker({named}) to the environment"
        )
    shape = tensordict.batch_size
    if flags.shape not in (shape, (*shape, 1)):
        raise ValueError(
            f"{key!r} has shape {list(flags.shape)}, expected {[*shape, 1]} or {[*shape]}"
        )
    if flags.dtype != torch.bool:
        raise ValueError(f"{key!r} has dtype {flags.dtype}, expected torch.bool: call .bool()")
    return flags.reshape(shape)
