"""What the past has to say in a present action: gradient times input, through the sequence form.

Simonyan et al. 2014 (arXiv:1312.6034) and Shrikumar et al. 2017 (arXiv:1704.02685); integrated
gradients are those of Sundararajan et al. 2017 (arXiv:1703.01365).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xlstm_rl.options.arguments import check_whole
from xlstm_rl.policy.auxiliary.inputs import ACTION_MASK, OBSERVATION
from xlstm_rl.policy.encoders.encoder import JoinedEncoder
from xlstm_rl.policy.policy import Policy
from xlstm_rl.policy.queries import Sequences

_NUMBERS = 1 << 22
"""Numbers of the input that are run at once: 16 MiB in float32."""
_ROWS = 16


@dataclass(frozen=True)
class Saliency:
    """How much each past step weighs in some actions of an episode of T steps."""

    steps: NDArray[np.int64]
    """The steps of the actions, `[N]`, ascending."""

    by_input: dict[str, NDArray[np.float64]]
    """For each input of the network `[N, T]`: the sum over its numbers of what they contribute,
    each taken as positive; zero behind the action."""

    signed: NDArray[np.float64]
    """The sum of all contributions with their signs, `[N, T]`: above 0 where a step speaks for the
    action, or for larger means."""

    blind: tuple[str, ...] = ()
    """Inputs that no gradient reaches, because an encoder of the user's own reads them as integers.
    """

    @property
    def total(self) -> NDArray[np.float64]:
        """The sum over the inputs, `[N, T]`."""
        return np.sum([*self.by_input.values()], axis=0)

    @property
    def relative(self) -> NDArray[np.float64]:
        """Each action's weights `[N, T]` relative to its largest before the action, at most 1.

        The present, which often weighs more than all that is past, ends at 1.
        """
        total = self.total
        past = np.where(np.arange(total.shape[1]) < self.steps[:, None], total, 0.0)
        largest = past.max(axis=1, keepdims=True)
        largest = np.where(largest > 0.0, largest, total.max(axis=1, keepdims=True))
        found: NDArray[np.float64] = np.minimum(total / np.where(largest > 0, largest, 1.0), 1.0)
        return found

    def most_salient(self, step: int) -> int:
        """Return the step before one that weighs most in its action.

        Raises:
            ValueError: nothing is before it.
        """
        if step < 1:
            raise ValueError(f"step={step}: nothing is before it")
        return int(self.row(step)[:step].argmax())

    def row(self, step: int) -> NDArray[np.float64]:
        """Return the weights `[T]` of the past in the last of its actions at or before a step."""
        found: NDArray[np.float64] = self.total[np.searchsorted(self.steps, step, "right") - 1]
        return found


def find_saliency(
    policy: Policy, read: Sequences, steps: int | Sequence[int] = 200, points: int = 0
) -> Saliency:
    """Return how much each past step of an episode weighs in its actions.

    The weight of an input x in a decision y is `x dy/dx`, with the gradient through all steps
    between them. y is what `ActionDistribution.decision` returns: the log-odds of the action that
    was taken, or the means of numbers; several add up as a Euclidean norm. x is the observation
    behind the normaliser. Of a choice it is the row of its embedding less their mean over the
    episode: what counts is which choice it is, not that there is one.

    Args:
        policy: that acts.
        read: one episode, as `Recording.read_by` returns it.
        steps: the steps of the actions, or how many of them, evenly spaced with the last one.
        points: of integrated gradients, along the straight line from zeros to the inputs: their
            sum over all inputs is what y gains on it; 0: the gradient at the inputs alone.

    Raises:
        ValueError: `points` is negative, or a step is none of the episode.
    """
    points = check_whole("points", points, 0)
    means = _embedding_means(policy, read)
    length = read.action.shape[1]
    chosen = _chosen(steps, length)
    scales = [(point + 0.5) / points for point in range(points)] or [1.0]
    rows: dict[str, list[Tensor]] = {}
    signed: list[Tensor] = []
    blind: tuple[str, ...] = ()
    for part in _chunks(chosen, _numbers(read)):
        found: dict[str, Tensor] = {}
        for scale in scales:
            contributions, blind = _contributions(policy, read, part, scale, means)
            for name, one in contributions.items():
                found[name] = found.get(name, 0.0) + one / len(scales)
        past = torch.arange(part[-1] + 1) <= torch.tensor(part)[:, None]

        def padded(weight: Tensor, past: Tensor = past) -> Tensor:
            return nn.functional.pad(weight.cpu() * past, (0, length - weight.shape[1]))

        for name, one in found.items():  # [A, N, end, features]
            rows.setdefault(name, []).append(padded(one.double().norm(dim=0).sum(-1)))
        signed.append(padded(sum(one.double().sum((0, -1)) for one in found.values())))
    by_input = {name: torch.cat(parts).numpy() for name, parts in rows.items()}
    return Saliency(np.array(chosen), by_input, torch.cat(signed).numpy(), blind)


def _chosen(steps: int | Sequence[int], length: int) -> list[int]:
    if isinstance(steps, int):
        count = min(check_whole("steps", steps, 1), length)
        return sorted({length - 1 - (index * length) // count for index in range(count)})
    chosen = sorted(set(steps))
    if not chosen or chosen[0] < 0 or chosen[-1] >= length:
        raise ValueError(f"steps are {chosen}, expected some of 0 to {length - 1}")
    return chosen


def _chunks(chosen: list[int], numbers: int) -> Iterator[list[int]]:
    """Cut the steps into groups whose sequences are run side by side, none much longer than it."""
    start = 0
    while start < len(chosen):
        room = max(1, min(_ROWS, _NUMBERS // (numbers * (chosen[start] + 1))))
        yield chosen[start : start + room]
        start += room


def _numbers(read: Sequences) -> int:
    """Return how many numbers the network reads at a step."""
    return sum(part[0, 0].numel() for part in _named(read).values())


def _named(read: Sequences) -> dict[str, Tensor]:
    bare = isinstance(read.observation, Tensor)
    return {OBSERVATION: read.observation} if bare else dict(read.observation)  # type: ignore[dict-item,arg-type]


def _contributions(
    policy: Policy, read: Sequences, steps: list[int], scale: float, means: list[Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return `x dy/dx` at `scale` times the inputs, `[A, N, end, features]` for each of them."""
    network, end, count = policy.network, steps[-1] + 1, len(steps)
    network_input: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    for name, whole in _named(read).items():
        part = whole[:, :end].expand(count, *whole[:, :end].shape[1:])
        if name != ACTION_MASK and (part.is_floating_point() or part.dtype == torch.uint8):
            part = (part.to(policy.dtype) * scale).requires_grad_()
            inputs[name] = part
        network_input[name] = part
    tensors = tuple(one.expand(count, *one.shape[1:]) for one in read.tensors)
    bare = isinstance(read.observation, Tensor)
    with torch.enable_grad(), _scaled_embeddings(network.trunk.encoder, scale, means) as gates:
        x: Any = network_input[OBSERVATION] if bare else network_input
        params, _, _ = network(x, tensors, None)
        rows, at = torch.arange(count), torch.tensor(steps)
        decision = network.distribution.decision(params[rows, at], read.action[0, at])
    embedded = dict.fromkeys(_names(network.trunk.encoder, gates, network_input))
    blind = tuple(
        name
        for name, part in network_input.items()
        if name not in inputs and name not in embedded and part.dtype != torch.bool
    )
    targets = [*inputs.values(), *(gate for _, gate in gates)]
    named = [*inputs, *_names(network.trunk.encoder, gates, network_input)]
    found: dict[str, list[list[Tensor]]] = {}
    for index in range(decision.shape[1]):
        gradients = torch.autograd.grad(
            decision[:, index].sum(), targets, retain_graph=True, allow_unused=True
        )
        for name, target, gradient in zip(named, targets, gradients, strict=True):
            per = torch.zeros_like(target) if gradient is None else target * gradient / scale
            found.setdefault(name, [[] for _ in range(decision.shape[1])])[index].append(
                per.detach().reshape(count, end, -1)
            )
    joined = {
        name: torch.stack([torch.cat(parts, -1) for parts in by_action])
        for name, by_action in found.items()
    }
    return joined, blind


@torch.no_grad()
def _embedding_means(policy: Policy, read: Sequences) -> list[Tensor]:
    """Return the means over an episode of what each embedding returns, `[k, width]` of k numbers.

    They are in the order in which the encoder calls its embeddings.
    """
    means: list[Tensor] = []
    length = read.action.shape[1]

    def hook(_: nn.Module, __: Any, output: Tensor) -> None:
        means.append(output.reshape(length, -1, output.shape[-1]).mean(0))

    encoder = policy.network.trunk.encoder
    with _hooked(encoder, hook):
        encoder(read.observation)
    return means


@contextmanager
def _scaled_embeddings(
    encoder: nn.Module, scale: float, means: list[Tensor]
) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Scale what embeddings return, less its means, by factors, and yield these.

    The gradient of a factor is that of a one-hot code times the code.
    """
    factors: list[tuple[nn.Module, Tensor]] = []

    def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        mean = means[len(factors) % len(means)]
        rows = output.reshape(-1, *mean.shape)
        factor = rows.new_full((*rows.shape[:-1], 1), scale).requires_grad_()
        factors.append((module, factor))
        return (mean + (rows - mean) * factor).reshape(output.shape)

    with _hooked(encoder, hook):
        yield factors


@contextmanager
def _hooked(encoder: nn.Module, hook: Callable[[nn.Module, Any, Tensor], Any]) -> Iterator[None]:
    """Let a hook see what the embeddings of an encoder return."""
    embeddings = [one for one in encoder.modules() if isinstance(one, nn.Embedding)]
    handles = [one.register_forward_hook(hook) for one in embeddings]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _names(
    encoder: nn.Module, gates: list[tuple[nn.Module, Tensor]], inputs: dict[str, Tensor]
) -> list[str]:
    """Return the names of the inputs that the embeddings read."""
    joined = next((one for one in encoder.modules() if isinstance(one, JoinedEncoder)), None)
    whole = [name for name, part in inputs.items() if not part.is_floating_point()]
    owners = {} if joined is None else dict(zip(joined.names, joined.encoders, strict=True))
    found = []
    for embedding, _ in gates:
        owner = [name for name, one in owners.items() if embedding in one.modules()]
        found.append((owner or whole or [OBSERVATION])[0])
    return found
