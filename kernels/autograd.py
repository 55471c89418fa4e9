"""What the hand-written backward passes share, and when they are not asked at all."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

Grads = tuple[Tensor | None, ...]
"""Of each input, in order; ``None`` for what has none or is not a tensor."""

Equations = Callable[..., Grads]
"""All outputs from all inputs, in operations that torch differentiates by itself.

``None`` stands for an output that there is not."""

P = ParamSpec("P")
R = TypeVar("R")

_BATCHED = torch._C._dispatch_key_parse("Batched")


def wants_gradient(*inputs: Any) -> bool:
    """Whether a graph is being recorded that one of the inputs is part of."""
    return torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and x.requires_grad for x in inputs
    )


def transforming() -> bool:
    """Whether a transform of ``torch.func`` or forward-mode differentiation is at work.

    They follow each operation of torch. What writes into buffers, looks at numbers or runs a
    kernel of its own is lost on them: the reference runs in its place.
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def refuse_forward_mode(run: Callable[P, R]) -> Callable[P, R]:
    """Wrap the body of an op, below which no tangent arrives: it would be taken for zero.

    Eager and compiled code never come here with one; an exported program does.
    """

    @functools.wraps(run)
    def body(*args: P.args, **kwargs: P.kwargs) -> R:
        if forward_ad._current_level >= 0:
            raise RuntimeError(
                "forward-mode differentiation cannot see into an exported program: apply it to "
                'the module that was exported, with any backend, or export with backend="reference"'
            )
        return run(*args, **kwargs)

    return body


def _batched(grads: Grads) -> bool:
    """Whether many gradients come as one, of which ``torch.func`` knows nothing.

    ``torch.autograd.grad(is_grads_batched=True)`` and the ``vectorize=True`` of
    ``torch.autograd.functional`` do so.
    """
    return any(g is not None and torch._C._dispatch_keys(g).has(_BATCHED) for g in grads)


def differentiable(equations: Equations, num_tensors: int) -> Callable[[Any], Any]:
    """Give the gradients of a hand-written backward gradients of their own, to any order.

    The backward stays what it is, and so do its numbers, with ``create_graph`` or without. Only
    where its gradients are differentiated in turn, or where a transform watches it, the equations
    are run again on the inputs and differentiated by torch.

    Args:
        equations: The outputs of the forward from its inputs.
        num_tensors: How many inputs are tensors or ``None``; options follow them.

    Returns:
        A decorator for ``backward(ctx, inputs, rest, *grads)``, which becomes ``backward(ctx,
        *grads)``. What the forward kept with `keep` comes as ``inputs`` and ``rest``.
    """

    def decorate(backward: Callable[..., Grads]) -> Callable[..., Grads]:
        @functools.wraps(backward)
        def run(ctx: Any, *grads: Tensor | None) -> Grads:
            kept = ctx.saved_tensors  # once: a checkpoint refuses to be asked again
            inputs, rest = kept[:num_tensors], kept[num_tensors:]
            none = (None,) * len(ctx.options)
            if transforming() or _batched(grads):
                return *pull_back(equations, ctx.options, inputs, grads), *none
            with torch.no_grad():
                computed = backward(ctx, inputs, rest, *grads)
            if not torch.is_grad_enabled():
                return computed
            given = [g for g in computed if g is not None]
            linked = _Linked.apply(  # type: ignore[no-untyped-call]
                given,
                [g is not None for g in computed[:num_tensors]],
                functools.partial(pull_back, equations, ctx.options),
                num_tensors,
                *inputs,
                *grads,
            )
            each = iter(linked)
            return tuple(None if g is None else next(each) for g in computed)

        return run

    return decorate


def keep(ctx: Any, inputs: tuple[Any, ...], num_tensors: int, *rest: Tensor | None) -> None:
    """Save the inputs themselves, so that a graph behind them is kept, and ``rest`` for a backward.

    The gradients of outputs that no loss has touched stay ``None``.
    """
    ctx.save_for_backward(*inputs[:num_tensors], *rest)
    ctx.options = inputs[num_tensors:]
    ctx.set_materialize_grads(False)


class _Linked(torch.autograd.Function):
    """Computed gradients as a function of the inputs and the incoming gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        computed: list[Tensor],
        given: list[bool],
        pull_back: Callable[..., Grads],
        num_tensors: int,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*tensors)
        ctx.given, ctx.pull_back, ctx.num_tensors = given, pull_back, num_tensors
        ctx.set_materialize_grads(False)
        return tuple(computed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        def again(*tensors: Tensor | None) -> Grads:
            pulled = ctx.pull_back(tensors[: ctx.num_tensors], tensors[ctx.num_tensors :])
            return tuple(g for g, given in zip(pulled, ctx.given, strict=True) if given)

        return *(None,) * 4, *pull_back(again, (), ctx.saved_tensors, grads)


def pull_back(
    equations: Callable[..., Grads],
    options: tuple[Any, ...],
    inputs: tuple[Tensor | None, ...],
    grads: Grads,
) -> Grads:
    """Differentiate the equations by torch: the gradient of each of the inputs, options left out.

    Its result is itself differentiable where gradients are recorded.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # aliases: one input may be made of another, or be the same tensor
        aliases = [None if x is None else x.view_as(x) for x in inputs]
        outputs = equations(*aliases, *options)
        pairs = [
            (y, g)
            for y, g in zip(outputs, grads, strict=False)  # an op hands out more than that
            if y is not None and g is not None and y.requires_grad
        ]
        wanted = [x for x in aliases if x is not None and x.requires_grad]
        if not pairs or not wanted:
            return (None,) * len(inputs)
        ys, gs = zip(*pairs, strict=True)
        found = torch.autograd.grad(ys, wanted, gs, create_graph=again, allow_unused=True)
    each = iter(found)
    return tuple(None if x is None or not x.requires_grad else next(each) for x in aliases)
