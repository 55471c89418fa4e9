"""The loss of a minibatch between calls that are laid out once: one of them, or torch's."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from xlstm_rl.agents.direct import DirectLoss
from xlstm_rl.kernels.native.held import NotCoveredError
from xlstm_rl.kernels.native.ppo_loss import PlacedLoss, named_parts
from xlstm_rl.kernels.native.program import Call
from xlstm_rl.policy.direct import DirectPass

Parts = dict[str, float] | dict[str, Tensor]
"""Of a loss, by name."""


class LossInC:
    """A loss that is one call, the last one of the way forward.

    Args:
        placed: the call.
        rest: what else the loss trains: log standard deviations of all steps, or nothing.
    """

    def __init__(self, placed: PlacedLoss, rest: Sequence[nn.Parameter]) -> None:
        of_each_step = [] if placed.dlog_std is None else [placed.dlog_std]
        if len(rest) != len(of_each_step):
            raise NotCoveredError
        self._placed, self._of_each_step = placed, of_each_step
        self.calls, self.work_bytes = [placed.call], placed.work_bytes
        self.doutputs, self.dvalue = placed.doutputs, placed.dvalue
        self.drest = [torch.empty_like(one) for one in rest]
        """Gradients of the rest."""

    def work_at(self, address: int) -> None:
        """Say where there are `work_bytes`."""
        self._placed.call.arguments.work = address

    def forward(self) -> bool:
        """Whether the loss is finite."""
        return math.isfinite(self._placed.parts[0])

    def backward(self) -> bool:
        """Whether all gradients are where they are expected."""
        for each, place in zip(self._of_each_step, self.drest, strict=True):
            torch.sum(each, (0, 1), out=place)
        return True

    @property
    def parts(self) -> Parts:
        """Of the loss."""
        return named_parts(self._placed.parts[1:], self._placed.has_barrier)


class LossInTorch:
    """A loss that is no call: torch, and what C knows of it, make it of what the network says.

    Args:
        make: returns the loss of what a network made; it is asked again for each minibatch.
        made: by the network, `[N, T]`, always in the same place; without a way back.
        rest: what else the loss trains.
    """

    def __init__(
        self,
        make: Callable[[DirectPass], DirectLoss],
        made: DirectPass,
        rest: Sequence[nn.Parameter],
    ) -> None:
        # who hears of a gradient would hear of it once more where a minibatch has to begin anew
        if any([one._backward_hooks or one._post_accumulate_grad_hooks for one in rest]):
            raise NotCoveredError
        self.calls: list[Call] = []
        self.work_bytes = 0
        self.doutputs, self.dvalue = torch.empty_like(made.outputs), torch.empty_like(made.value)
        self.drest = [torch.empty_like(one) for one in rest]
        """Gradients of the rest."""
        self._make, self._rest = make, rest
        self._made = made._replace(backward=self._keep)
        self._is_kept = False

    def work_at(self, address: int) -> None:
        """Say where there are `work_bytes`."""

    def forward(self) -> bool:
        """Make it; whether it is finite."""
        self._found = self._make(self._made)
        return math.isfinite(self._found.loss.item())

    def backward(self) -> bool:
        """Differentiate it; whether all gradients are where they are expected."""
        loss, _, back = self._found
        for one in self._rest:
            one.grad = None
        self._is_kept = False
        torch.autograd.backward(loss) if back is None else back(loss)
        for one, place in zip(self._rest, self.drest, strict=True):
            if one.grad is None:
                return False
            place.copy_(one.grad)
            one.grad = place
        return self._is_kept

    @property
    def parts(self) -> Parts:
        """Of the loss."""
        return self._found.log

    def _keep(
        self, doutputs: Tensor | None, dvalue: Tensor | None, dfeatures: Tensor | None = None
    ) -> None:
        if doutputs is None or dvalue is None or dfeatures is not None:
            return  # then the minibatch goes the ordinary way
        self.doutputs.copy_(doutputs)
        self.dvalue.copy_(dvalue)
        self._is_kept = True
