"""The three calls behind which every memory stands, and its state as a TensorDict or bare."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from xlstm_rl.kernels.checks import check_inplace
from xlstm_rl.memory.gates import Gates
from xlstm_rl.options.arguments import check_whole

StateTensors = tuple[Tensor, ...]
"""The state of a memory as bare tensors, batch first, in the order of its `state_keys`."""

Leaves = StateTensors
"""The name of `StateTensors` before version 0.2."""

StateKey = str | tuple[str, ...]


class Memory(nn.Module, ABC):
    """A memory that reads whole sequences [B, T, D] or single steps [B, D], with equal results.

    `reset[b, t]` is true where step t is the first of an episode: the state before it is fresh,
    that is all zeros. State is passed in and handed back, never kept here, and never written into
    unless `step_tensors` is asked to.

    `forward` and `step` speak TensorDict. `forward_tensors` and `step_tensors` do the same with the
    bare tensors of the state, in the order of `state_keys`. They are for loops in which building a
    TensorDict at every step would cost more than the memory itself.

    Args:
        width: Size D of what goes in and comes out.
        state_shapes: Key and shape of each state tensor, without the batch dimension.
    """

    span: int | None = None
    """How many steps back it can see; None: to the beginning of the episode."""

    def __init__(self, width: int, state_shapes: dict[StateKey, tuple[int, ...]]) -> None:
        super().__init__()
        self.width = width
        self.state_keys: tuple[StateKey, ...] = tuple(state_shapes)
        self.state_shapes: tuple[tuple[int, ...], ...] = tuple(state_shapes.values())

    def __repr__(self) -> str:
        """Say its options and sizes in one line; `children()` has the parts."""
        config = getattr(self, "config", None)
        made_of = f"width={self.width}" if config is None else repr(config)
        weights = sum(one.numel() for one in self.parameters())
        numbers = sum(math.prod(shape) for shape in self.state_shapes)
        return f"{type(self).__name__}({made_of}, {weights:,} weights, a state of {numbers:,})"

    @abstractmethod
    def _sequence(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        """Run x [B, T, D]; the arguments are checked."""

    @abstractmethod
    def _step(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None, inplace: bool
    ) -> tuple[Tensor, StateTensors]:
        """Run x [B, D], with `inplace` into the given tensors; the arguments are checked."""

    def forward(
        self, x: Tensor, state: TensorDictBase | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, TensorDict]:
        """Run the memory over a sequence.

        Args:
            x: Inputs [B, T, D].
            state: State before the first step, batch size [B]; None: fresh.
            reset: bool [B, T], true at the first step of an episode; None: no resets.

        Returns:
            Outputs [B, T, D] and the state after the last step.

        Raises:
            ValueError: If a shape, a type or the keys of the state do not fit.
        """
        tensors = None if state is None else self.unpack_state(state)
        y, tensors = self.forward_tensors(x, tensors, reset)
        return y, self.pack_state(tensors, x.shape[0])

    def step(
        self, x: Tensor, state: TensorDictBase | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, TensorDict]:
        """Run the memory over one step: `forward` without the time dimension.

        Args:
            x: Inputs [B, D].
            state: State before the step, batch size [B]; None: fresh.
            reset: bool [B], true where the step is the first of an episode; None: nowhere.

        Returns:
            Outputs [B, D] and the state after the step.

        Raises:
            ValueError: If a shape, a type or the keys of the state do not fit.
        """
        tensors = None if state is None else self.unpack_state(state)
        y, tensors = self.step_tensors(x, tensors, reset)
        return y, self.pack_state(tensors, x.shape[0])

    def forward_tensors(
        self, x: Tensor, tensors: StateTensors | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, StateTensors]:
        """Do what `forward` does, with the state as bare tensors in the order of `state_keys`."""
        if x.dim() != 3 or x.shape[2] != self.width or x.shape[1] == 0:
            raise ValueError(
                f"x has shape {list(x.shape)}, expected [B, T, {self.width}] with T >= 1; "
                "for a single step [B, D] call step"
            )
        self._check_state_and_reset(x, tensors, reset)
        y, after = self._sequence(x, tensors, reset)
        return y, self._keep_dtypes(x, tensors, after)

    def step_tensors(
        self,
        x: Tensor,
        tensors: StateTensors | None = None,
        reset: Tensor | None = None,
        inplace: bool = False,
    ) -> tuple[Tensor, StateTensors]:
        """Do what `step` does, with the state as bare tensors in the order of `state_keys`.

        On a CUDA device nothing here waits for the device, so that a step can be captured in a
        CUDA graph.

        Args:
            x: Inputs [B, D].
            tensors: State before the step, batch first; None: fresh.
            reset: bool [B], true where the step is the first of an episode; None: nowhere.
            inplace: Overwrite the tensors, rows that are reset included, and hand the same tensors
                back; for acting, without gradients. Each keeps its dtype.

        Raises:
            ValueError: If a shape or a type does not fit, or if `inplace` has no tensors.
            RuntimeError: If `inplace` would overwrite what gradients need.
        """
        if x.dim() != 2 or x.shape[1] != self.width:
            raise ValueError(
                f"x has shape {list(x.shape)}, expected [B, {self.width}]; "
                "for a sequence [B, T, D] call the memory itself"
            )
        self._check_state_and_reset(x, tensors, reset)
        if inplace:
            weights = self.parameters() if torch.is_grad_enabled() else ()
            check_inplace(inplace, tensors, x, *weights)
        y, after = self._step(x, tensors, reset, inplace)
        return y, after if inplace else self._keep_dtypes(x, tensors, after)

    def _keep_dtypes(
        self, x: Tensor, before: StateTensors | None, after: StateTensors
    ) -> StateTensors:
        """Return a state in the dtypes that it came in, whatever autocast computed with."""
        kind = x.device.type
        known = kind in ("cpu", "cuda") or torch.amp.is_autocast_available(kind)
        if not (known and torch.is_autocast_enabled(kind)):  # refuses to say of "meta"
            return after
        if before is None:
            before = self.initial_tensors(x.shape[0], x.device)
        return tuple(new.to(old.dtype) for new, old in zip(after, before, strict=True))

    def gates(
        self, x: Tensor, tensors: StateTensors | None = None, reset: Tensor | None = None
    ) -> dict[str, Gates]:
        """Return the gates over a sequence by block, without gradients; none: there are none.

        Arguments are those of `forward_tensors`. For looking at a memory, not for speed.
        """
        return {}

    def initial_state(
        self,
        batch_size: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> TensorDict:
        """Return a fresh state: zeros, batch size [batch_size].

        Args:
            batch_size: Number of environments B.
            device: Where it lies; None: where the parameters lie.
            dtype: Its type; None: that of the parameters.
        """
        batch_size = check_whole("batch_size", batch_size, 0)
        return self.pack_state(self.initial_tensors(batch_size, device, dtype), batch_size)

    def initial_tensors(
        self,
        batch_size: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> StateTensors:
        """Return a fresh state as bare tensors in the order of `state_keys`."""
        parameter = next(self.parameters())
        device = parameter.device if device is None else device
        dtype = parameter.dtype if dtype is None else dtype
        return tuple(
            torch.zeros(batch_size, *shape, device=device, dtype=dtype)
            for shape in self.state_shapes
        )

    # The names of these three before version 0.2.
    forward_leaves = forward_tensors
    step_leaves = step_tensors
    initial_leaves = initial_tensors

    def pack_state(self, tensors: StateTensors, batch_size: int | None = None) -> TensorDict:
        """Build the TensorDict of a state from its bare tensors.

        Args:
            tensors: The tensors in the order of `state_keys`, batch first.
            batch_size: B; needed only by memories without state, which have no tensor to tell it.

        Raises:
            ValueError: If there are too many or too few tensors, or their batch sizes differ.
        """
        self._check_tensor_count(tensors)
        if batch_size is None:
            if not tensors:
                raise ValueError("a memory without state cannot tell its batch size; pass it")
            batch_size = tensors[0].shape[0]
        for key, tensor in zip(self.state_keys, tensors, strict=True):
            if tensor.shape[0] != batch_size:
                raise ValueError(f"state {key} has batch {tensor.shape[0]}, expected {batch_size}")
        nested: dict[str, dict[str, Tensor] | Tensor] = {}
        for key, tensor in zip(self.state_keys, tensors, strict=True):
            if isinstance(key, str):
                nested[key] = tensor
            else:
                group = nested.setdefault(key[0], {})
                assert isinstance(group, dict)
                group[key[1]] = tensor
        return TensorDict(nested, batch_size=[batch_size])

    def unpack_state(self, state: TensorDictBase) -> StateTensors:
        """Return the bare tensors of a state in the order of `state_keys`.

        Raises:
            ValueError: If the batch is not one-dimensional, or a key is missing or unknown.
        """
        if state.batch_dims != 1:
            raise ValueError(
                f"the state has batch size {list(state.batch_size)}, expected [B]; "
                "index or reshape it so that the environments are its only batch dimension"
            )
        found: dict[StateKey, Any] = {}
        for key, entry in state.items():
            if isinstance(entry, TensorDictBase):
                found.update({(key, name): tensor for name, tensor in entry.items()})
            else:
                found[key] = entry
        if found.keys() != set(self.state_keys):
            raise ValueError(
                f"the state has the keys {sorted(map(str, found))}, expected "
                f"{sorted(map(str, self.state_keys))}; was it made by another memory?"
            )
        return tuple(found[key] for key in self.state_keys)

    def _check_state_and_reset(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None
    ) -> None:
        if tensors is not None:
            self._check_tensor_count(tensors)
            for key, shape, tensor in zip(self.state_keys, self.state_shapes, tensors, strict=True):
                if tensor.shape[0] != x.shape[0] or tensor.shape[1:] != shape:
                    raise ValueError(
                        f"state {key} has shape {list(tensor.shape)}, "
                        f"expected {[x.shape[0], *shape]}"
                    )
        if reset is not None:
            if reset.shape != x.shape[:-1]:
                raise ValueError(
                    f"reset has shape {list(reset.shape)}, expected {list(x.shape[:-1])}"
                )
            if reset.dtype != torch.bool:
                raise ValueError(f"reset has dtype {reset.dtype}, expected torch.bool")

    def _check_tensor_count(self, tensors: StateTensors) -> None:
        if len(tensors) != len(self.state_keys):
            raise ValueError(
                f"the state has {len(tensors)} tensors, expected {len(self.state_keys)}: "
                f"{list(self.state_keys)}"
            )
