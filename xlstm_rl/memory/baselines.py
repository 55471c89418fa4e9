"""Memories to compare with, behind the same calls: LSTM, GRU, and an MLP without memory."""

from abc import abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid

from xlstm_rl.kernels.autograd import wants_gradient
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.recurrent import covers, recurrent_layer, recurrent_step
from xlstm_rl.kernels.recurrent.reference import Weights, gru_step, lstm_step
from xlstm_rl.memory.base import Memory, StateKey, StateTensors
from xlstm_rl.memory.config import LayeredConfig
from xlstm_rl.memory.cudnn import run_in_float32
from xlstm_rl.memory.gates import Gates
from xlstm_rl.memory.layers import parameter
from xlstm_rl.memory.transforms import spelt_out


def _stacked(layers: list[StateTensors]) -> StateTensors:
    """Return the states [B, D] of each layer as tensors [B, layers, D]."""
    if len(layers) == 1:
        return tuple([state[:, None] for state in layers[0]])
    return tuple(torch.stack(states, 1) for states in zip(*layers, strict=True))


class _RecurrentMemory(Memory):
    """What LSTM and GRU share: torch's fused network over a sequence, its cell at a step.

    On the CPU in float32 both are C (`xlstm_rl.kernels.native`), with resets inside. Else, with
    resets the network runs from one step at which any row resets to the next. (One packed
    sequence of all episodes takes fewer steps in a row, but on the CPU it misses torch's fast
    path: measured up to 6 times slower, unless almost every step has a reset.)

    Under the transforms of `torch.func`, which know neither torch's network nor its cells, and in
    an export, which cannot look where the resets are, the sequence runs step by step, in the
    equations of a cell.
    """

    def __init__(
        self, config: LayeredConfig, network: nn.LSTM | nn.GRU, names: tuple[str, ...]
    ) -> None:
        shapes: dict[StateKey, tuple[int, ...]] = {
            name: (config.num_layers, config.width) for name in names
        }
        super().__init__(config.width, shapes)
        self.config = config
        self.network = network

    @abstractmethod
    def _run_network(self, x: Tensor, state: StateTensors) -> tuple[Tensor, StateTensors]:
        """Run the fused network on x [B, T, D] from the states [layers, B, D]."""

    @abstractmethod
    def _run_cell(self, x: Tensor, state: StateTensors, layer: int) -> StateTensors:
        """Run one layer's cell on x [B, D] from the states [B, D]; the output is state 0."""

    @abstractmethod
    def _run_equations(self, x: Tensor, state: StateTensors, layer: int) -> StateTensors:
        """Do what `_run_cell` does in operations that every transform knows."""

    @abstractmethod
    def _gates(self, pre: Tensor) -> Gates:
        """Return the gates [B, D] that sums of inputs and biases [B, G D] are activated to."""

    @torch.no_grad()
    def gates(
        self, x: Tensor, tensors: StateTensors | None = None, reset: Tensor | None = None
    ) -> dict[str, Gates]:
        """Return the gates over x [B, T, D] of all layers, which are its heads."""
        given = self.initial_tensors(x.shape[0], x.device, x.dtype) if tensors is None else tensors
        steps = []
        for t in range(x.shape[1]):
            if reset is not None:
                given = tuple([one.masked_fill(reset[:, t, None, None], 0.0) for one in given])
            below, layers = x[:, t], []
            after = self._step(below, given, None, inplace=False)[1]
            for layer in range(self.network.num_layers):
                w_ih, w_hh, b_ih, b_hh = self.cell_weights(layer)
                pre = linear(below, w_ih, b_ih) + linear(given[0][:, layer], w_hh, b_hh)
                layers.append(self._gates(pre))
                below = after[0][:, layer]
            steps.append([torch.stack(one, 1) for one in zip(*layers, strict=True)])
            given = after
        return {"0": Gates(*(torch.stack(one, 1) for one in zip(*steps, strict=True)))}

    def _sequence(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        if tensors is None:
            tensors = self.initial_tensors(x.shape[0], x.device, x.dtype)
        if spelt_out():
            return self._sequence_of_steps(x, tensors, reset)
        native = self.native_layers(x, reset, tensors)
        if native is not None:
            finals = []
            for before, weights in native:
                x, after = recurrent_layer(x, reset, before, weights)
                finals.append(after)
            return x, _stacked(finals)
        state = tuple(tensor.transpose(0, 1).contiguous() for tensor in tensors)
        if reset is None:
            y, state = run_in_float32(self._run_network, x, state)
        else:
            outputs = []
            borders = [*reset.any(0).nonzero().squeeze(1).tolist(), x.shape[1]]
            if borders[0] > 0:
                borders = [0, *borders]
            for begin, end in pairwise(borders):
                fresh = reset[:, begin, None]  # broadcasts over [layers, B, D]
                state = tuple(tensor.masked_fill(fresh, 0.0) for tensor in state)
                y, state = run_in_float32(self._run_network, x[:, begin:end], state)
                outputs.append(y)
            y = torch.cat(outputs, 1)
        return y, tuple(tensor.transpose(0, 1) for tensor in state)

    def native_layers(
        self, x: Tensor, reset: Tensor | None, tensors: StateTensors
    ) -> list[tuple[StateTensors, Weights]] | None:
        """Return the state and the weights of each layer; None: torch has to run."""
        if torch.compiler.is_compiling() or not takes_native("auto", x, whole_block=True):
            return None
        layers = []
        for layer in range(self.network.num_layers):
            state = tuple([tensor[:, layer] for tensor in tensors])
            weights = self.cell_weights(layer)
            if not covers(x, reset, state, weights):
                return None
            layers.append((state, weights))
        return layers

    def _sequence_of_steps(
        self, x: Tensor, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        outputs = []
        for t in range(x.shape[1]):
            fresh = None if reset is None else reset[:, t]
            y, tensors = self._step(x[:, t], tensors, fresh, inplace=False)
            outputs.append(y)
        return torch.stack(outputs, 1), tensors

    def _step(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None, inplace: bool
    ) -> tuple[Tensor, StateTensors]:
        given = self.initial_tensors(x.shape[0], x.device, x.dtype) if tensors is None else tensors
        if not (torch.is_grad_enabled() and wants_gradient(x, *given, *self.parameters())):
            native = self.native_layers(x, reset, given)
            if native is not None:
                finals = []
                for before, weights in native:
                    x, after = recurrent_step(x, reset, before, weights, inplace)
                    finals.append(after)
                return x, given if inplace else _stacked(finals)
        old = given
        if reset is not None:
            old = tuple(tensor.masked_fill(reset[:, None, None], 0.0) for tensor in given)
        layers = []
        run_cell = self._run_equations if spelt_out() else self._run_cell
        for layer in range(self.network.num_layers):
            state = run_cell(x, tuple(tensor[:, layer] for tensor in old), layer)
            x = state[0]
            layers.append(state)
        if not inplace or tensors is None:
            return x, _stacked(layers)
        for tensor, states in zip(tensors, zip(*layers, strict=True), strict=True):
            for layer, state in enumerate(states):
                tensor[:, layer] = state
        return x, tensors

    def cell_weights(self, layer: int) -> Weights:
        """Return those of a layer: input, state, and the bias of each."""
        network = self.network
        w_ih, w_hh, b_ih, b_hh = [parameter(network, name) for name in network._all_weights[layer]]
        return w_ih, w_hh, b_ih, b_hh


class LSTMMemory(_RecurrentMemory):
    """An LSTM of `num_blocks` layers; state h and c, each [B, layers, D]."""

    def __init__(self, config: LayeredConfig) -> None:
        network = nn.LSTM(config.width, config.width, config.num_layers, batch_first=True)
        super().__init__(config, network, ("h", "c"))

    def _run_network(self, x: Tensor, state: StateTensors) -> tuple[Tensor, StateTensors]:
        y, new = self.network(x, state)
        return y, new

    def _run_cell(self, x: Tensor, state: StateTensors, layer: int) -> StateTensors:
        return torch.lstm_cell(x, state, *self.cell_weights(layer))

    def _run_equations(self, x: Tensor, state: StateTensors, layer: int) -> StateTensors:
        return lstm_step(x, state, self.cell_weights(layer))

    def _gates(self, pre: Tensor) -> Gates:
        i, f, _, _ = pre.chunk(4, -1)
        return Gates(logsigmoid(i), logsigmoid(f))


class GRUMemory(_RecurrentMemory):
    """A GRU of `num_blocks` layers; state h [B, layers, D]."""

    def __init__(self, config: LayeredConfig) -> None:
        network = nn.GRU(config.width, config.width, config.num_layers, batch_first=True)
        super().__init__(config, network, ("h",))

    def _run_network(self, x: Tensor, state: StateTensors) -> tuple[Tensor, StateTensors]:
        y, new = self.network(x, state[0])
        return y, (new,)

    def _run_cell(self, x: Tensor, state: StateTensors, layer: int) -> StateTensors:
        return (torch.gru_cell(x, state[0], *self.cell_weights(layer)),)

    def _run_equations(self, x: Tensor, state: StateTensors, layer: int) -> StateTensors:
        return gru_step(x, state, self.cell_weights(layer))

    def _gates(self, pre: Tensor) -> Gates:
        z = pre.chunk(3, -1)[1]  # what is not kept is new
        return Gates(logsigmoid(-z), logsigmoid(z))


def mlp_layers(width: int, blocks: int) -> list[nn.Module]:
    """Return layers that map D -> 3 D -> D, as often as there are blocks."""
    layers: list[nn.Module] = []
    for _ in range(blocks):
        layers += [nn.Linear(width, 3 * width), nn.SiLU()]
        layers += [nn.Linear(3 * width, width), nn.SiLU()]
    return layers


class MLPMemory(Memory):
    """An MLP that remembers nothing, what a memory has to beat; its state is empty.

    Each of its `num_blocks` blocks maps D -> 3 D -> D, as many weights as a GRU layer has, or an
    mLSTM block of `proj_factor` 2.
    """

    span = 0

    def __init__(self, config: LayeredConfig) -> None:
        super().__init__(config.width, {})
        self.config = config
        self.network = nn.Sequential(*mlp_layers(config.width, config.num_layers))

    def _sequence(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        return self.network(x), ()

    def _step(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None, inplace: bool
    ) -> tuple[Tensor, StateTensors]:
        return self.network(x), ()
