"""Memories to compare with, behind the same calls: LSTM, GRU, and an MLP without memory."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from xlstm_rl.memory.base import Leaves, Memory, StateKey
from xlstm_rl.memory.config import MemoryConfig


class _RecurrentMemory(Memory):
    """What LSTM and GRU share: torch's fused network over a sequence, its cell at a step."""

    def __init__(
        self, config: MemoryConfig, network: nn.LSTM | nn.GRU, names: tuple[str, ...]
    ) -> None:
        shapes: dict[StateKey, tuple[int, ...]] = {
            name: (config.num_layers, config.width) for name in names
        }
        super().__init__(config.width, shapes)
        self.config = config
        self.network = network

    @abstractmethod
    def _run_network(self, x: Tensor | PackedSequence, state: Leaves) -> tuple[Tensor, Leaves]:
        """Run the fused network on x from the states [layers, B, D]; packed in, packed out."""

    @abstractmethod
    def _run_cell(self, x: Tensor, state: Leaves, layer: int) -> Leaves:
        """Run one layer's cell on x [B, D] from the states [B, D]; the output is state 0."""

    def _sequence(
        self, x: Tensor, leaves: Leaves | None, reset: Tensor | None
    ) -> tuple[Tensor, Leaves]:
        if leaves is None:
            leaves = self.initial_leaves(x.shape[0], x.device, x.dtype)
        state = tuple(leaf.transpose(0, 1) for leaf in leaves)
        if reset is None:
            y, state = self._run_network(x, tuple(leaf.contiguous() for leaf in state))
        else:
            pieces = _cut_at_resets(reset)
            packed = PackedSequence(x.flatten(0, 1)[pieces.packed], pieces.batch_sizes)
            fresh = pieces.fresh[:, None]
            state = tuple(leaf[:, pieces.rows].masked_fill(fresh, 0.0) for leaf in state)
            y, state = self._run_network(packed, state)
            y = y[pieces.unpacked].view_as(x)
            state = tuple(leaf[:, pieces.last] for leaf in state)
        return y, tuple(leaf.transpose(0, 1) for leaf in state)

    def _step(
        self, x: Tensor, leaves: Leaves | None, reset: Tensor | None
    ) -> tuple[Tensor, Leaves]:
        if leaves is None:
            leaves = self.initial_leaves(x.shape[0], x.device, x.dtype)
        elif reset is not None:
            leaves = tuple(leaf.masked_fill(reset[:, None, None], 0.0) for leaf in leaves)
        layers = []
        for layer in range(self.network.num_layers):
            state = self._run_cell(x, tuple(leaf[:, layer] for leaf in leaves), layer)
            x = state[0]
            layers.append(state)
        return x, tuple(torch.stack(states, 1) for states in zip(*layers, strict=True))

    def _cell_weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        w_ih, w_hh, b_ih, b_hh = self.network.all_weights[layer]
        return w_ih, w_hh, b_ih, b_hh


class LSTMMemory(_RecurrentMemory):
    """An LSTM of `num_blocks` layers; state h and c, each [B, layers, D]."""

    def __init__(self, config: MemoryConfig) -> None:
        network = nn.LSTM(config.width, config.width, config.num_layers, batch_first=True)
        super().__init__(config, network, ("h", "c"))

    def _run_network(self, x: Tensor | PackedSequence, state: Leaves) -> tuple[Tensor, Leaves]:
        y, new = self.network(x, state)
        return (y.data if isinstance(y, PackedSequence) else y), new

    def _run_cell(self, x: Tensor, state: Leaves, layer: int) -> Leaves:
        return torch.lstm_cell(x, state, *self._cell_weights(layer))


class GRUMemory(_RecurrentMemory):
    """A GRU of `num_blocks` layers; state h [B, layers, D]."""

    def __init__(self, config: MemoryConfig) -> None:
        network = nn.GRU(config.width, config.width, config.num_layers, batch_first=True)
        super().__init__(config, network, ("h",))

    def _run_network(self, x: Tensor | PackedSequence, state: Leaves) -> tuple[Tensor, Leaves]:
        y, new = self.network(x, state[0])
        return (y.data if isinstance(y, PackedSequence) else y), (new,)

    def _run_cell(self, x: Tensor, state: Leaves, layer: int) -> Leaves:
        return (torch.gru_cell(x, state[0], *self._cell_weights(layer)),)


class MLPMemory(Memory):
    """An MLP that remembers nothing, what a memory has to beat; its state is empty.

    Each of its `num_blocks` blocks maps D -> 3 D -> D, as many weights as a GRU layer has, or an
    mLSTM block of expansion 2.
    """

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__(config.width, {})
        self.config = config
        layers: list[nn.Module] = []
        for _ in range(config.num_layers):
            layers += [nn.Linear(config.width, 3 * config.width), nn.SiLU()]
            layers += [nn.Linear(3 * config.width, config.width), nn.SiLU()]
        self.network = nn.Sequential(*layers)

    def _sequence(
        self, x: Tensor, leaves: Leaves | None, reset: Tensor | None
    ) -> tuple[Tensor, Leaves]:
        return self.network(x), ()

    def _step(
        self, x: Tensor, leaves: Leaves | None, reset: Tensor | None
    ) -> tuple[Tensor, Leaves]:
        return self.network(x), ()


@dataclass(frozen=True)
class _Pieces:
    """The rows of a batch [B, T], cut at their resets into P pieces, the longest first."""

    rows: Tensor  # [P] the row each piece comes from
    fresh: Tensor  # [P] whether it starts from zeros, not from the row's initial state
    packed: Tensor  # [B * T] flat index of each entry of the packed sequence
    unpacked: Tensor  # [B * T] the inverse of `packed`
    batch_sizes: Tensor  # [longest] how many pieces are still running, on the CPU
    last: Tensor  # [B] the piece in which each row ends


def _cut_at_resets(reset: Tensor) -> _Pieces:
    """Cut rows at their resets so that the pieces can run side by side as one packed sequence.

    The number of steps one after another is then the length of the longest piece: resets make a
    sequence cheaper, where running from reset to reset would make it dearer.
    """
    B, T = reset.shape
    starts = reset.clone()
    starts[:, 0] = True
    first = starts.flatten().nonzero().squeeze(1)  # flat index of each piece's first step
    end = torch.cat([first[1:], first.new_tensor([B * T])])
    length, order = torch.sort(end - first, descending=True, stable=True)
    first, end = first[order], end[order]

    offset = torch.arange(int(length[0]), device=reset.device)[:, None]
    running = offset < length
    packed = (first + offset)[running]
    unpacked = torch.empty_like(packed)
    unpacked[packed] = torch.arange(B * T, device=reset.device)
    rows = first // T
    ends_row = (end % T == 0).nonzero().squeeze(1)
    last = torch.empty(B, dtype=torch.long, device=reset.device)
    last[rows[ends_row]] = ends_row
    return _Pieces(
        rows=rows,
        fresh=reset.flatten()[first] | (first % T != 0),
        packed=packed,
        unpacked=unpacked,
        batch_sizes=running.sum(1).cpu(),
        last=last,
    )
