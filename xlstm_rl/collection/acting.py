"""The actor's step while collecting: as it is, or on a GPU from a CUDA graph.

A step of one environment is some forty launches, which take the host longer than the GPU: from a
graph they are one.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.encoders.observations import map_observation
from xlstm_rl.policy.graph_actor import CudaGraph, StepGraph
from xlstm_rl.policy.native_step import overwriting_pays

Step = tuple[Tensor, Tensor, StateTensors]


class ActorStep(Protocol):
    """One step of an actor: distribution parameters, features and the state after."""

    def __call__(self, x: Observation, tensors: StateTensors, reset: Tensor | None, /) -> Step:
        """Act on what the network reads `[B, ...]`, from a state, with the flags `[B]` or None."""
        ...


def make_actor_step(network: ActorCritic, device: torch.device) -> ActorStep:
    """Return the faster step of a device, which may overwrite the state that it is given."""
    if device.type == "cuda":
        return GraphedStep(network, device)
    weight = next(network.parameters())
    inplace = overwriting_pays(network.trunk.memory, device, weight.dtype)
    return partial(network.actor_step, inplace=inplace)


class GraphedStep:
    """`ActorCritic.actor_step`, captured at its first call and then started at one go.

    What it is given is copied to a fixed place, where the graph reads it. The state is overwritten
    and handed back: it holds until the next call. Weights may change in place; where others take
    their place the step is captured again. A network that cannot be captured, as one that asks the
    GPU for a number, acts without a graph, and one warning says so.

    Args:
        network: on `device`.
        device: of CUDA.
        new_graph: makes what captures and replays.
    """

    def __init__(
        self,
        network: ActorCritic,
        device: torch.device,
        new_graph: Callable[[torch.device], StepGraph] = CudaGraph,
    ) -> None:
        self._network, self._device, self._new_graph = network, device, new_graph
        self._graph: StepGraph | None = None
        self._is_refused = False

    def __call__(self, x: Observation, tensors: StateTensors, reset: Tensor | None) -> Step:
        """Act; see `ActorStep`."""
        if self._is_refused or torch.is_autocast_enabled(self._device.type):
            return self._network.actor_step(x, tensors, reset)
        if self._graph is None or self._weights() != self._captured or self._differs(x):
            try:
                self._capture(x, tensors)
            except RuntimeError as error:
                self._is_refused = True
                why = str(error).strip().splitlines()[0]
                warnings.warn(
                    f"acting without a CUDA graph, since the step cannot be captured: {why}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return self._network.actor_step(x, tensors, reset)
        _copy(self._x, x)
        if tensors is not self._tensors:
            for mine, new in zip(self._tensors, tensors, strict=True):
                mine.copy_(new)
        if reset is None:
            self._reset.zero_()
        else:
            self._reset.copy_(reset)
        assert self._graph is not None
        self._graph.replay()
        params, features = self._out
        return params.clone(), features.clone(), self._tensors  # the next step overwrites them

    def _weights(self) -> int:
        """Where the weights are: one stands for all."""
        return next(self._network.parameters()).data_ptr()

    def _differs(self, x: Observation) -> bool:
        """Whether the graph was captured with inputs of another shape."""
        mine = self._x
        if isinstance(mine, Tensor) or isinstance(x, Tensor):
            return not (isinstance(mine, Tensor) and isinstance(x, Tensor) and _alike(mine, x))
        return mine.keys() != x.keys() or not all(_alike(mine[key], x[key]) for key in x)

    def _capture(self, x: Observation, tensors: StateTensors) -> None:
        graph = self._new_graph(self._device)
        with torch.inference_mode(False), torch.no_grad():
            self._x = map_observation(torch.clone, x)
            self._tensors = tuple(one.clone() for one in tensors)
            rows = next(iter(x.values())) if isinstance(x, dict) else x
            self._reset = torch.zeros(len(rows), dtype=torch.bool, device=self._device)
            self._out = graph.capture(self._run)
        # at these addresses the graph reads: held, so that nobody else is given them
        kept = (*self._network.parameters(), *self._network.buffers())
        self._held = [one.detach() for one in kept]
        self._captured, self._graph = self._weights(), graph

    def _run(self) -> tuple[Tensor, Tensor]:
        """Step from place to place: what is captured."""
        params, features, _ = self._network.actor_step(
            self._x, self._tensors, self._reset, inplace=True
        )
        return params, features


def _alike(mine: Tensor, other: Tensor) -> bool:
    return mine.shape == other.shape and mine.dtype == other.dtype


def _copy(mine: Observation, new: Observation) -> None:
    if isinstance(mine, dict) and isinstance(new, dict):
        for name, tensor in mine.items():
            tensor.copy_(new[name])
    elif isinstance(mine, Tensor) and isinstance(new, Tensor):
        mine.copy_(new)
