"""What each number that a network reads contributes to a decision: itself times its gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xlstm_rl.policy.auxiliary.inputs import ACTION_MASK, OBSERVATION
from xlstm_rl.policy.encoders.encoder import JoinedEncoder
from xlstm_rl.policy.encoders.observations import map_observation
from xlstm_rl.policy.policy import Policy
from xlstm_rl.policy.queries import Sequences


def named_inputs(read: Sequences) -> dict[str, Tensor]:
    """Return what a network reads, by name, without the mask, which only forbids."""
    if isinstance(read.observation, Tensor):
        return {OBSERVATION: read.observation}
    return {name: one for name, one in read.observation.items() if name != ACTION_MASK}


@torch.no_grad()
def baselines(policy: Policy) -> dict[str, Tensor]:
    """Return what a network reads of an observation of zeros, `[1, 1, ...]`, by name."""
    zeros = map_observation(lambda one: one.unsqueeze(0), policy.reader.example(1, policy.device))
    read = policy.normalizer(zeros)
    return {OBSERVATION: read} if isinstance(read, Tensor) else read


def contributions(
    policy: Policy, read: Sequences, steps: list[int], scale: float, means: list[Tensor]
) -> dict[str, Tensor]:
    """Return `(x - x0) dy/dx` on the line from x0 to x, `[A, N, end, features]` for each input.

    Of numbers x0 is what the network reads of an observation of zeros, of choices the mean
    embedding, of what stands beside the observation zero. An input of integers that no embedding
    reads has no contributions.

    Args:
        policy: that acts.
        read: one episode.
        steps: of N actions, whose decisions y have A numbers; `end` is behind the last of them.
        scale: where on the line the gradient is taken: 0 at x0, 1 at x.
        means: as `embedding_means` returns them.
    """
    network, end, count = policy.network, steps[-1] + 1, len(steps)
    tensors = tuple(one.expand(count, *one.shape[1:]) for one in read.tensors)
    zeros, x = baselines(policy), {}
    targets: list[_Target] = []
    for name, whole in named_inputs(read).items():
        x[name] = whole[:, :end].expand(count, *whole[:, :end].shape[1:])
        if x[name].is_floating_point() or x[name].dtype == torch.uint8:  # numbers, or pixels
            zero = zeros[name].to(policy.dtype) if name in zeros else 0.0
            away = x[name].to(policy.dtype) - zero
            x[name] = (zero + scale * away).requires_grad_()
            targets.append((name, x[name], away))
    observation: Any = x
    if isinstance(read.observation, Tensor):
        observation = x[OBSERVATION]
    elif ACTION_MASK in read.observation:
        mask = read.observation[ACTION_MASK][:, :end]
        observation = {**x, ACTION_MASK: mask.expand(count, -1, -1)}
    encoder = network.trunk.encoder
    with torch.enable_grad(), _scaled_embeddings(encoder, scale, means) as factors:
        params, _, _ = network(observation, tensors, None)
        rows, at = torch.arange(count), torch.tensor(steps)
        decision = network.distribution.decision(params[rows, at], read.action[0, at])
    for embedding, factor in factors:
        targets.append((_owner(encoder, embedding, x), factor, torch.ones_like(factor)))
    return _weighted_gradients(decision, targets, (count, end)) if targets else {}


_Target = tuple[str, Tensor, Tensor]
"""Name of an input, what of it gradients reach, and how far it is from where the line begins."""


def _weighted_gradients(
    decision: Tensor, targets: list[_Target], lead: tuple[int, int]
) -> dict[str, Tensor]:
    """Return distances times gradients of decisions `[N, A]`, `[A, *lead, features]` by name."""
    found: list[dict[str, Tensor]] = []
    for index in range(decision.shape[1]):
        gradients = torch.autograd.grad(
            decision[:, index].sum(),
            [one for _, one, _ in targets],
            retain_graph=True,
            allow_unused=True,
        )
        parts: dict[str, list[Tensor]] = {}
        for (name, _, away), gradient in zip(targets, gradients, strict=True):
            part = torch.zeros_like(away) if gradient is None else away * gradient
            parts.setdefault(name, []).append(part.reshape(*lead, -1))
        found.append({name: torch.cat(part, -1) for name, part in parts.items()})
    return {name: torch.stack([one[name] for one in found]) for name in found[0]}


@torch.no_grad()
def embedding_means(policy: Policy, read: Sequences) -> list[Tensor]:
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


def _owner(encoder: nn.Module, embedding: nn.Module, inputs: dict[str, Tensor]) -> str:
    """Return the name of the input that an embedding reads."""
    for joined in encoder.modules():
        if isinstance(joined, JoinedEncoder):
            for name, one in zip(joined.names, joined.encoders, strict=True):
                if embedding in one.modules():
                    return name
    choices = [name for name, one in inputs.items() if not one.is_floating_point()]
    return (choices or [OBSERVATION])[0]
