"""Reading what a recurrent module needs beside its input, with errors that name the transform."""

from tensordict import NestedKey, TensorDictBase
from torch import Tensor


def read_state(tensordict: TensorDictBase, key: NestedKey, size: int) -> Tensor:
    """Return the state `[*batch, size]` of a tensordict.

    Raises:
        KeyError: it is missing.
        ValueError: it has another shape.
    """
    state: Tensor | None = tensordict.get(key, None)
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
    return state


def read_is_init(tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """Return the flags of episode starts `[*batch]` of a tensordict.

    Raises:
        KeyError: they are missing.
        ValueError: they have another shape.
    """
    flags: Tensor | None = tensordict.get(key, None)
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
    return flags.reshape(shape).bool()
