"""What the hand-written backward passes share."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Grads = tuple[Tensor | None, ...]
"""Of each input, in order; ``None`` for what has none or is not a tensor."""


def wants_gradient(*inputs: Any) -> bool:
    """Whether a graph is being recorded that one of the inputs is part of."""
    return torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and x.requires_grad for x in inputs
    )


def first_derivatives_only(backward: Callable[..., Grads]) -> Callable[..., Grads]:
    """Mark the ``backward`` of an ``autograd.Function`` that is not itself differentiable.

    With ``create_graph=True`` its gradients lead to an error as soon as they are differentiated.
    ``torch.autograd.function.once_differentiable`` does so only where the incoming gradient is
    itself part of a graph; of a loss that is linear in the output it would drop the second
    derivative without a word.
    """

    @functools.wraps(backward)
    def run(ctx: Any, *grads: Tensor | None) -> Grads:
        with torch.no_grad():
            outputs = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return outputs
        tensors = [g for g in outputs if g is not None]
        link = tensors[0].new_zeros((), requires_grad=True)  # so that the node is recorded at all
        linked = iter(_DeadEnd.apply(link, *tensors))  # type: ignore[no-untyped-call]
        return tuple(None if g is None else next(linked) for g in outputs)

    return run


class _DeadEnd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, link: Tensor, *grads: Tensor) -> Grads:
        return tuple(g.view_as(g) for g in grads)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        raise RuntimeError(
            "second derivatives are not implemented by this backend: "
            'compute these with backend="reference"'
        )
