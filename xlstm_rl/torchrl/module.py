"""A memory as a recurrent module of TorchRL."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from tensordict import NestedKey, TensorDictBase, unravel_key
from tensordict.nn import TensorDictModuleBase, dispatch
from torch import Tensor, nn
from torchrl.data import Unbounded
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.modules.tensordict_module.rnn import recurrent_mode

from xlstm_rl.memory import Memory, MemoryConfig, make_memory
from xlstm_rl.options.arguments import check_whole
from xlstm_rl.torchrl.entries import check_device, check_rows, find_tensor, read_is_init, read_state
from xlstm_rl.torchrl.keys import check_choice, check_flag, choose_in_keys, choose_out_keys
from xlstm_rl.torchrl.sequence import SequenceRunner, Sequences, SequenceStates
from xlstm_rl.torchrl.state import StateLayout, state_dtype


class XLSTMModule(TensorDictModuleBase):  # type: ignore[misc]
    """An xLSTM memory, or any other of this library, where TorchRL has `GRUModule`.

    It reads `[*batch, input_size]` and writes `[*batch, D]`, D being the memory's width. Its state
    is one vector `[*batch, S]` under one key; `unpack_state` takes it apart. In TorchRL's
    recurrent mode the last batch dimension is time, otherwise each entry is one step.

    Where a trajectory starts. A step at `is_init` starts from zeros. In a sequence a trajectory
    starts at `is_init` from the state that is stored there, as in TorchRL: zeros at the start of an
    episode, something else at that of a replayed slice; a row's first step starts from its stored
    state whatever `is_init` says. Zeros, the common case, are a reset within one call of the
    kernels. The row is split only where a stored state is not zero, or has gradients; the parts
    then run beside each other without padding: in one call where they are equally long, else in one
    for each power of two up to the longest.

    States that come back. In a sequence `("next", state)` is right after the last step of every
    trajectory, and zeros elsewhere, as in TorchRL: `[*batch, T, S]`, T times the memory that the
    last one alone needs, and as much as a collector stores. Value estimators join these states into
    new tensors: run them within `tensordict.set_lazy_legacy(True)`, which joins none. The last
    step's state carries gradients. The states at trajectory ends within a row cost a second pass
    over all but the last trajectory of each row, without gradients. `sequence_states="last"` leaves
    it out, and zeros stand there: enough for burn-in. `"none"` writes no states in recurrent mode:
    losses and value estimators do not read them. Single steps write their state in any case.

    Args:
        input_size: size of the input. Where it differs from the memory's width, a linear layer
            stands in front.
        memory: a memory, the configuration of one, or its options; None: the default one.
        in_key: key of the input; those of state and episode starts are then `"recurrent_state"`
            and `"is_init"`.
        in_keys: instead of `in_key`, keys of input, state, and (optionally) episode starts.
        out_key: key of the output; that of the state after is then `("next", "recurrent_state")`.
        out_keys: instead of `out_key`, keys of output and state after.
        device: where the weights are made.
        default_recurrent_mode: whether it runs sequences outside of `set_recurrent_mode`.
        sequence_states: which states a sequence gives: `"ends"`, where trajectories end; `"last"`,
            after the last step of each row; `"none"`.

    Raises:
        ValueError: an argument is out of range; keys are missing, given twice or too many; an
            output would overwrite the state or the mark of episode starts.
        TypeError: keys are not a list or tuple of keys, or a flag is neither True nor False.
    """

    def __init__(
        self,
        input_size: int,
        memory: Memory | MemoryConfig | Mapping[str, Any] | None = None,
        *,
        in_key: NestedKey | None = None,
        in_keys: Sequence[NestedKey] | None = None,
        out_key: NestedKey | None = None,
        out_keys: Sequence[NestedKey] | None = None,
        device: torch.device | str | None = None,
        default_recurrent_mode: bool | None = None,
        sequence_states: SequenceStates = "ends",
    ) -> None:
        super().__init__()
        self.input_size = check_whole("input_size", input_size, 1)
        self.in_keys = choose_in_keys(in_key, in_keys)
        self.out_keys = choose_out_keys(out_key, out_keys, self.in_keys)
        self._out, self._after = self.out_keys  # select_out_keys takes keys away
        if default_recurrent_mode is not None:
            check_flag("default_recurrent_mode", default_recurrent_mode, "True, False or None")
        if isinstance(memory, Mapping) or memory is None:
            memory = MemoryConfig(**(memory or {}))
        if not isinstance(memory, Memory | MemoryConfig):
            raise TypeError(
                f"memory={memory!r}: expected a MemoryConfig, its options as a dict, or a memory"
            )
        self.memory = make_memory(memory) if isinstance(memory, MemoryConfig) else memory
        width = self.memory.width
        self.projection: nn.Module = nn.Identity()
        if self.input_size != width:
            self.projection = nn.Linear(self.input_size, width)
        self.layout = StateLayout(self.memory.state_shapes)
        self.sequence_states = sequence_states
        self._recurrent_mode = default_recurrent_mode
        # by its name: the weights of TorchRL's target networks are no parameters
        named = [*self.projection.named_parameters("projection"), *self.named_parameters()]
        self._weight_path = named[0][0].split(".")
        if device is not None:
            self.to(device)

    @property
    def recurrent_mode(self) -> bool:
        """Whether the last batch dimension is time; `torchrl.modules.set_recurrent_mode` sets it.

        Raises:
            RuntimeError: it is assigned to.
        """
        mode = recurrent_mode()
        return bool(self._recurrent_mode if mode is None else mode)

    @recurrent_mode.setter
    def recurrent_mode(self, value: bool) -> None:
        raise RuntimeError(
            "recurrent_mode cannot be assigned: use `with torchrl.modules.set_recurrent_mode(...)` "
            "or the argument default_recurrent_mode"
        )

    @property
    def sequence_states(self) -> SequenceStates:
        """Which states a sequence gives.

        Raises:
            ValueError: what is assigned is none of the three words.
        """
        return self._sequence_states

    @sequence_states.setter
    def sequence_states(self, value: SequenceStates) -> None:
        choices = get_args(SequenceStates)
        self._sequence_states: SequenceStates = check_choice("sequence_states", value, choices)

    @property
    def given_keys(self) -> list[NestedKey]:
        """The keys of what a call with tensors in the place of a tensordict returns."""
        without = self.recurrent_mode and self.sequence_states == "none"
        return [key for key in self.out_keys if not (without and key == self._after)]

    @property
    def canonical_keys(self) -> list[NestedKey]:
        """The keys that `torchrl.modules.canonicalize_rnn_subset` lays out anew."""
        return [*self.in_keys, self._out, self._after]

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """Return the transform that gives an environment a fresh state at every reset.

        Raises:
            RuntimeError: the output key of the state is not `("next", <its input key>)`.
        """
        key, after = self.in_keys[1], self._after
        if after != unravel_key(("next", key)):
            raise RuntimeError(
                f"the state is read from {key!r} and written to {after!r}: a primer needs it to be "
                f"written to {unravel_key(('next', key))!r}"
            )
        spec = Unbounded(shape=(self.layout.size,), dtype=state_dtype(self._weight))
        return TensorDictPrimer({key: spec}, expand_specs=True)

    def pack_state(self, state: TensorDictBase) -> Tensor:
        """Return a state as the memory has it, batch size `[B]`, as a vector `[B, S]`."""
        tensors = self.memory.unpack_state(state)
        like = self._weight.new_zeros(state.shape[0], self.layout.size)
        return self.layout.pack(tensors, like.to(state_dtype(like)))

    def unpack_state(self, packed: Tensor) -> TensorDictBase:
        """Return a vector `[B, S]` as a state of the memory, batch size `[B]`."""
        tensors = self.layout.unpack(packed, self._weight)
        return self.memory.pack_state(tensors, packed.shape[0])

    @dispatch(dest="given_keys")  # type: ignore[untyped-decorator]
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Run a step of each entry or, in recurrent mode, sequences; write into the tensordict.

        Raises:
            KeyError: the input, the state or the mark of episode starts is missing.
            ValueError: a shape or a dtype does not fit, or there is no time dimension.
        """
        shape, recurrent = tensordict.batch_size, self.recurrent_mode
        if recurrent:
            check_rows(tensordict)
        x = self._read_input(tensordict)
        state = read_state(tensordict, self.in_keys[1], self.layout.size)
        is_init = read_is_init(tensordict, self.in_keys[2])
        check_device(self.in_keys[1], state, x)
        check_device(self.in_keys[2], is_init, x)
        if not shape.numel():
            raise ValueError(f"the tensordict has batch size {list(shape)}: there is nothing in it")
        rows = (shape[:-1].numel(), shape[-1]) if recurrent else (shape.numel(),)
        x = x.reshape(*rows, self.input_size)
        state, is_init = state.reshape(*rows, self.layout.size), is_init.reshape(rows)
        after: Tensor | None
        if recurrent:
            runner = SequenceRunner(self.memory, self.projection, self.layout, self.sequence_states)
            y, after = runner.run(Sequences(x, state, is_init))
        else:
            x = self.projection(x)
            y, tensors = self.memory.step_tensors(x, self.layout.unpack(state, x), is_init)
            after = self.layout.pack(tensors, state)
        tensordict.set(self._out, y.reshape(*shape, self.memory.width))
        if after is not None:
            tensordict.set(self._after, after.reshape(*shape, self.layout.size))
        return tensordict

    @property
    def _weight(self) -> Tensor:
        found: Any = self
        for name in self._weight_path:
            found = getattr(found, name)
        weight: Tensor = found
        return weight

    def _read_input(self, tensordict: TensorDictBase) -> Tensor:
        key = self.in_keys[0]
        x = find_tensor(tensordict, key, "the input ")
        if x is None:
            raise KeyError(
                f"the input {key!r} is not among the keys of the tensordict, "
                f"{sorted(map(str, tensordict.keys(True, True)))}; set in_key"
            )
        expected = (*tensordict.batch_size, self.input_size)
        if x.shape != expected:
            raise ValueError(f"the input {key!r} has shape {list(x.shape)}, expected {[*expected]}")
        weight = self._weight
        check_device(key, x, weight)
        dtype = weight.dtype
        if x.dtype != dtype and not (
            x.is_floating_point() and torch.is_autocast_enabled(x.device.type)
        ):
            raise ValueError(
                f"the input {key!r} has dtype {x.dtype}, expected that of the weights, {dtype}; "
                "for numbers add DoubleToFloat() to the environment"
            )
        return x
