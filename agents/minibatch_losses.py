"""The loss of a minibatch between calls that are laid out once: one of them, or torch's."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from xlstm_rl.agents.direct import DirectLoss
from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.native.held import NotCoveredError
from xlstm_rl.kernels.native.ppo_loss import PlacedLoss, named_parts
from xlstm_rl.kernels.native.program import Call
from xlstm_rl.policy.direct import DirectPass

Parts = dict[str, float] | dict[str, Tensor]
"""Of a loss, by name."""


class MinibatchLoss(Protocol):
    """What stands between the way forward and the way back."""

    calls: list[Call]
    """The last ones of the way forward."""

    work_bytes: int
    """What they work in."""

    doutputs: Tensor
    """Where the gradient of the network's outputs is."""

    dvalue: Tensor
    """Likewise of its values."""

    drest: list[Tensor]
    """Likewise of what else the loss trains."""

    def work_at(self, address: int) -> None:
        """Say where there are `work_bytes`."""

    def forward(self) -> bool:
        """Do what is left of the way forward; whether the loss is finite."""

    def backward(self) -> bool:
        """Bring all gradients to where they are expected; False: one has not come."""

    def take_parts(self) -> Parts:
        """Return the loss's parts, once."""

    def undo(self) -> None:
        """Be as before the minibatch, which begins anew in the ordinary way."""


class LossInC:
    """A loss that is one call.

    Args:
        placed: the call.
        rest: what else the loss trains.
        log_std: log standard deviations of all steps, where the network has any.

    Raises:
        NotCoveredError: the rest is not what the call trains.
    """

    def __init__(
        self, placed: PlacedLoss, rest: Sequence[nn.Parameter], log_std: nn.Parameter | None
    ) -> None:
        of_each_step = [] if placed.dlog_std is None else [placed.dlog_std]
        if [*map(id, rest)] != [id(log_std) for _ in of_each_step]:
            raise NotCoveredError
        self._placed, self._of_each_step = placed, of_each_step
        self.calls, self.work_bytes = [placed.call], placed.work_bytes
        self.doutputs, self.dvalue = placed.doutputs, placed.dvalue
        self.drest = [torch.empty_like(one) for one in rest]

    def work_at(self, address: int) -> None:
        """Say where there are `work_bytes`."""
        self._placed.work_at(address)

    def forward(self) -> bool:
        """Whether the loss is finite."""
        return math.isfinite(self._placed.parts[0])

    def backward(self) -> bool:
        """Sum what is of each step."""
        for each, place in zip(self._of_each_step, self.drest, strict=True):
            torch.sum(each, (0, 1), out=place)
        return True

    def take_parts(self) -> Parts:
        """Return the loss's parts."""
        return named_parts(self._placed.parts[1:], self._placed.has_barrier)

    def undo(self) -> None:
        """Nothing has happened."""


class LossInTorch:
    """A loss that torch makes of what the network says, in a graph that begins there.

    A distribution of somebody's own may be asked for it. The noise that it draws is as in the
    ordinary way. What it keeps of a minibatch is not: the next one has its numbers in the same
    place, and torch refuses to go back through a graph of them.

    Args:
        make: returns the loss of what a network made; it is asked again for each minibatch.
        made: by the network, `[N, T]`, always in the same place; without a way back.
        weights: of the network.
        rest: what else the loss trains.
        taken: what a minibatch is made of, always in the same place.

    Raises:
        NotCoveredError: somebody listens to gradients of the rest, or they are not trained.
    """

    def __init__(
        self,
        make: Callable[[DirectPass], DirectLoss],
        made: DirectPass,
        weights: Sequence[nn.Parameter],
        rest: Sequence[nn.Parameter],
        taken: Sequence[Tensor],
    ) -> None:
        for one in rest:
            # who hears of a gradient would hear of it once more where a minibatch begins anew
            hooks = one._backward_hooks or one._post_accumulate_grad_hooks
            if hooks or not one.requires_grad:
                raise NotCoveredError
        self.calls: list[Call] = []
        self.work_bytes = 0
        self._arrived = _Arrived(made)
        self.doutputs, self.dvalue = self._arrived.doutputs, self._arrived.dvalue
        self.drest = [torch.empty_like(one) for one in rest]
        self._make, self._weights, self._rest = make, weights, rest
        self._made = made._replace(backward=self._arrived.keep)
        self._overwritten = [*taken, made.outputs, made.value, made.features]
        self._found: DirectLoss | None = None
        self._noise: Tensor | None = None

    def work_at(self, address: int) -> None:
        """Nothing works there."""

    def forward(self) -> bool:
        """Make it; whether it is finite."""
        note_overwritten(self._overwritten)  # for graphs that somebody keeps
        self._noise = torch.get_rng_state()
        self._found = self._make(self._made)
        return math.isfinite(self._found.loss.item())

    def backward(self) -> bool:
        """Differentiate it; False: a gradient has not come, or has come to a weight itself."""
        assert self._found is not None
        loss, _, back = self._found
        for one in (*self._weights, *self._rest):  # whoever keeps those of before keeps them
            one.grad = None
        self._arrived.has_come = False
        torch.autograd.backward(loss) if back is None else back(loss)
        if any([one.grad is not None for one in self._weights]):
            return False
        for one, place in zip(self._rest, self.drest, strict=True):
            if one.grad is None:
                return False
            place.copy_(one.grad)
        return self._arrived.has_come

    def take_parts(self) -> Parts:
        """Return the loss's parts, and let its graph go."""
        assert self._found is not None
        log, self._found = self._found.log, None
        return log

    def undo(self) -> None:
        """Put the noise back that was drawn."""
        self._found = None
        if self._noise is not None:
            torch.set_rng_state(self._noise)


class _Arrived:
    """Where the gradients of what a network made arrive."""

    def __init__(self, made: DirectPass) -> None:
        self.doutputs, self.dvalue = torch.empty_like(made.outputs), torch.empty_like(made.value)
        self.has_come = False

    def keep(
        self, doutputs: Tensor | None, dvalue: Tensor | None, dfeatures: Tensor | None = None
    ) -> None:
        if doutputs is None or dvalue is None or dfeatures is not None:
            return  # then the minibatch goes the ordinary way
        self.doutputs.copy_(doutputs)
        self.dvalue.copy_(dvalue)
        self.has_come = True
