"""An actor whose whole step is captured once in a CUDA graph and then started at one go."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import map_leaves
from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.actor import Actor
from xlstm_rl.policy.auxiliary.reader import AuxiliaryValues
from xlstm_rl.policy.policy_module import PolicyModule
from xlstm_rl.seeding import torch_stream_restored

_WARM_UP_STEPS = 3  # they compile kernels and take cuBLAS's workspace: no work for a capture


class StepGraph(Protocol):
    """What records a step and repeats it; replaced in tests, where there is no GPU."""

    def capture(self, run: Callable[[], Any]) -> Any:
        """Record `run`, possibly after running it a few times; return what it returns."""
        ...

    def replay(self) -> None:
        """Do again what was recorded, on the same tensors, the returned one included."""
        ...


class CudaGraph:
    """A `torch.cuda.CUDAGraph` with its warm-up, which leaves the random generators as they were.

    Raises:
        RuntimeError: the device is not one of CUDA (or ROCm).
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise RuntimeError(
                f"cuda_graph=True needs a policy on a CUDA device, this one is on {device}: move "
                "it with policy.to('cuda') first, or leave cuda_graph=False"
            )
        self._device = device
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, run: Callable[[], Any]) -> Any:
        """Warm up on a side stream, then record.

        Samples may come from torch's default generator: a graph knows it by itself, and each
        replay draws on from where it stands.
        """
        # A cast that autocast has cached would be captured as a constant.
        with torch.cuda.device(self._device), torch.autocast("cuda", enabled=False):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream), torch_stream_restored(self._device):
                for _ in range(_WARM_UP_STEPS):
                    run()
            torch.cuda.current_stream().wait_stream(stream)
            # Another stream than the warm-up's, as torch's own pattern has it: there cuBLAS takes
            # a workspace from the graph's memory, and nobody else's reset frees it.
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            # What other threads do on the GPU meanwhile, say to pinned memory, is their business.
            mode = "thread_local"
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode=mode):
                out = run()
        return out

    def replay(self) -> None:
        """Start the recorded step on the current stream, without waiting for it."""
        self._graph.replay()


class _Staged:
    """A tensor at a fixed place that is filled and read, by way of pinned memory if on a GPU."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._host: Tensor | None = None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._copied = torch.cuda.Event()

    def write(self, value: Tensor) -> None:
        """Copy from a tensor anywhere, cast to this dtype; from the GPU itself without waiting."""
        if self._host is None or value.device.type != "cpu":
            self.tensor.copy_(value)
            return
        self._copied.synchronize()  # the copy before has long left the pinned memory, as a rule
        self._host.copy_(value)
        self.tensor.copy_(self._host, non_blocking=True)
        self._copied.record(torch.cuda.current_stream(self.tensor.device))

    def read(self) -> NDArray[Any]:
        """Return a copy as NumPy; this waits for the device."""
        host = self.tensor
        if self._host is not None:
            host = self._host.copy_(self.tensor, non_blocking=True)
            self._copied.record(torch.cuda.current_stream(self.tensor.device))
            self._copied.synchronize()
        array: NDArray[Any] = host.numpy().copy()
        return array


class GraphActor(Actor):
    """An `Actor` with one launch a step: `policy.actor(..., cuda_graph=True)`.

    Captured is `policy.step`, the step of every other way to act, from raw observations to
    actions of the environment: normaliser, encoder, memory in place with its resets, action head,
    mode or sample. What changes **in place** afterwards is seen: weights under an optimiser or
    `load_state_dict`, running statistics. A policy that is moved or cast needs a new actor, and
    is refused here.

    Args:
        policy: on a CUDA device.
        num_envs: as for `Actor`; fixed.
        deterministic: as for `Actor`; fixed.
        graph: what captures and replays; None: a CUDA graph.

    Raises:
        RuntimeError: the policy is not on a CUDA device.
    """

    def __init__(
        self,
        policy: PolicyModule,
        num_envs: int | None,
        deterministic: bool,
        graph: StepGraph | None = None,
    ) -> None:
        self._graph = CudaGraph(policy.device) if graph is None else graph
        super().__init__(policy, num_envs, deterministic)
        device, rows = policy.device, self._batch_size
        with torch.inference_mode(False), torch.no_grad():
            # the warm-up needs observations of the space
            example = policy.reader.example(rows, device)
            self._obs = (
                _Staged(example)
                if isinstance(example, Tensor)
                else {name: _Staged(part) for name, part in example.items()}
            )
            self._reset = _Staged(torch.zeros(rows, dtype=torch.bool, device=device))
            self._reset_is_clear = True
            auxiliary, width = policy.auxiliary, policy.auxiliary_reader.mask.width
            self._reward = (
                _Staged(torch.zeros(rows, dtype=torch.float64, device=device))
                if auxiliary.reads_reward
                else None
            )
            all_allowed = torch.ones(rows, width, dtype=torch.bool, device=device)
            self._mask = _Staged(all_allowed) if auxiliary.reads_mask else None
            self._action = map_leaves(_Staged, self._graph.capture(self._run))
            for tensor in self._tensors:  # the warm-up has been here
                tensor.zero_()
        # The graph reads from these addresses: held, so that nobody else is given them.
        self._held = [x.detach() for x in (*policy.parameters(), *policy.buffers())]
        self._address = self._first_address()

    def __getstate__(self) -> Any:
        """Refuse to be pickled or copied.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "a GraphActor holds a CUDA graph, which can be neither pickled nor copied: send the "
            "policy, and make an actor with policy.actor(..., cuda_graph=True) there"
        )

    def _run(self) -> Any:
        """Do the step from buffer to buffer: what is captured."""
        obs: Observation
        if isinstance(self._obs, dict):
            obs = {name: staged.tensor for name, staged in self._obs.items()}
        else:
            obs = self._obs.tensor
        action, _ = self.policy.step(
            obs,
            self._tensors,
            self._reset.tensor,
            self.deterministic,
            inplace=True,
            auxiliary=(
                None if self._reward is None else self._reward.tensor,
                None if self._mask is None else self._mask.tensor,
            ),
        )
        return action

    def _store(self, tensors: StateTensors) -> None:
        if not self._tensors:
            super()._store(tensors)
        for mine, new in zip(self._tensors, tensors, strict=True):
            mine.copy_(new)

    def _first_address(self) -> int:
        """Where the weights are now: one stands for all."""
        return next(self.policy.network.parameters()).data_ptr()

    def _follow_policy(self) -> None:
        if self._first_address() != self._address:
            raise RuntimeError(
                "the policy was moved or cast since its step was captured, or given other tensors "
                "for weights (load_state_dict with assign=True): make a new actor with "
                "policy.actor(..., cuda_graph=True)"
            )

    def _step(self, obs: Observation, reset: Tensor | None, auxiliary: AuxiliaryValues) -> Any:
        if isinstance(self._obs, dict) and isinstance(obs, dict):
            for name, staged in self._obs.items():
                staged.write(obs[name])
        elif isinstance(self._obs, _Staged) and isinstance(obs, Tensor):
            self._obs.write(obs)
        reward, mask = auxiliary
        if self._reward is not None and reward is not None:
            self._reward.write(reward)
        if self._mask is not None and mask is not None:
            self._mask.write(mask)
        if reset is not None:
            self._reset.write(reset)
            self._reset_is_clear = False
        elif not self._reset_is_clear:
            self._reset.tensor.zero_()
            self._reset_is_clear = True
        self._graph.replay()
        return self._action

    def _hand_out(self, action: Any, as_tensor: bool) -> Any:
        # the next step overwrites the buffers
        return map_leaves(lambda one: one.tensor.clone() if as_tensor else one.read(), action)
