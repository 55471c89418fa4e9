"""Minibatches of PPO as calls that are laid out once an update.

The numbers are to the bit those of `direct_pass`, `direct_loss` and `clipped_adam_step`, one after
the other. What Python does between the calls of a minibatch is a sixth of its time (measured), and
with two threads one of them waits for it.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from xlstm_rl.agents.direct import placed_loss
from xlstm_rl.agents.sequences import Sequences
from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.native.adam import placed_adam_step
from xlstm_rl.kernels.native.held import NotCoveredError
from xlstm_rl.kernels.native.ppo_loss import named_parts
from xlstm_rl.kernels.native.program import Program, Rows
from xlstm_rl.kernels.native.workspace import ALIGNMENT, aligned, allocate
from xlstm_rl.memory import StateTensors
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.direct import has_plain_params, lend_chains
from xlstm_rl.policy.native_calls import NetworkCalls
from xlstm_rl.profiling import Profile

MOST_CODES = 1 << 24
"""Numbers that the observations of an update are coded as, where some are choices: 64 MiB. Of more,
each minibatch codes its own."""


class Descent(NamedTuple):
    """How a minibatch's gradient becomes a step."""

    optimizer: Optimizer
    parameters: Sequence[nn.Parameter]
    max_grad_norm: float


class MinibatchProgram:
    """Gradient steps on minibatches of an update: as long as it lives, nothing else may change.

    Args:
        network: what learns.
        sequences: of the update.
        count: sequences of a minibatch.
        options: of the loss, in the order of `xlstm_rl.kernels.native.ppo_loss.OPTIONS`.
        wants_barrier: whether the loss has a log barrier.
        descent: what takes the steps.

    Raises:
        NotCoveredError: C does not know all of it.
    """

    def __init__(
        self,
        network: ActorCritic,
        sequences: Sequences,
        count: int,
        options: tuple[float, ...],
        wants_barrier: bool,
        descent: Descent,
    ) -> None:
        observation, free = sequences.observation, network.log_std
        if not has_plain_params(network, observation):
            raise NotCoveredError
        steps = sequences.reset.shape[1]
        lease = lend_chains(network, (count, steps)) if count and steps else None
        if lease is None or sequences.reset.numel() * lease.built.num_codes > MOST_CODES:
            raise NotCoveredError
        inputs = lease.built.inputs(observation)
        if inputs is None:
            raise NotCoveredError
        self._rows, taken = _take(sequences, inputs, count)
        self._calls = calls = NetworkCalls(lease, taken.inputs, taken.state, taken.reset)
        loss = placed_loss(
            *(network, calls.outputs, taken.action, calls.value),
            *((taken.log_prob, taken.value, taken.advantage, taken.target), taken.valid),
            *(options, wants_barrier),
        )
        if loss is None:
            raise NotCoveredError
        self._loss = loss
        back, grads = calls.backward(loss.doutputs, loss.dvalue)
        by_weight = {id(one): g for one, g in zip(lease.built.weights, grads, strict=True)}
        self._dfree = None if free is None else torch.empty_like(free)
        if free is not None and self._dfree is not None:
            by_weight[id(free)] = self._dfree
        self._parameters = descent.parameters
        self._grads = [by_weight.get(id(one)) for one in self._parameters]
        if len(by_weight) != len(self._grads):
            raise NotCoveredError
        step = placed_adam_step(
            descent.optimizer, self._parameters, self._grads, descent.max_grad_norm
        )
        if step is None:
            raise NotCoveredError
        self._step = step
        self._work = allocate(max(calls.work_bytes, loss.work_bytes) + ALIGNMENT)
        calls.work_at(aligned(self._work))
        loss.call.arguments.work = aligned(self._work)
        self._forward = Program([self._rows.call, *calls.forward, loss.call])
        self._backward, self._descend = Program(back), Program([step.call])
        self._starts = sequences.reset.any(1).tolist()
        self._is_told = False

    def run(self, numbers: list[int], profile: Profile) -> dict[str, float] | None:
        """Take a step on the sequences `[count]` with these numbers.

        Returns:
            The loss's parts and the gradient's norm, as `gradient_step` has them. None: something
            is not finite, or not as expected; no step was taken.
        """
        with profile.part("forward"):
            self._rows.choose(numbers)
            self._calls.resets(any([self._starts[n] for n in numbers]))
            if self._forward.run() or not math.isfinite(self._loss.parts[0]):
                return None
        with profile.part("backward"):
            if self._backward.run():
                return None
            if self._dfree is not None and self._loss.dlog_std is not None:
                torch.sum(self._loss.dlog_std, (0, 1), out=self._dfree)
        with profile.part("optimizer"):
            if self._descend.run():
                return None
            if not self._is_told:
                self._tell()
        parts = named_parts(self._loss.parts[1:], self._loss.has_barrier)
        return {**parts, "grad_norm": self._step.norm.value}

    def _tell(self) -> None:
        """Show torch the gradients, and that the weights are others than before, once for all."""
        self._is_told = True
        note_overwritten(self._parameters)
        for weight, grad in zip(self._parameters, self._grads, strict=True):
            weight.grad = grad


class _Taken(NamedTuple):
    """What a minibatch is made of, where it stays."""

    action: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor
    reset: Tensor
    valid: Tensor | None
    inputs: list[Tensor]
    state: StateTensors


def _take(sequences: Sequences, inputs: Sequence[Tensor], count: int) -> tuple[Rows, _Taken]:
    """Return what takes a minibatch's rows, and where they are then.

    Args:
        sequences: of the update.
        inputs: what the network reads of their observations.
        count: sequences of a minibatch.

    Raises:
        NotCoveredError: C cannot read one of them.
    """
    own = [sequences.action, sequences.log_prob, sequences.value, sequences.advantage]
    own += [sequences.target, sequences.reset]
    valid = [] if sequences.valid is None else [sequences.valid]
    parts: list[Sequence[Tensor]] = [own, valid, inputs, sequences.state]
    rows = Rows([one.contiguous() for part in parts for one in part], count)
    taken = iter(rows.taken)
    (action, log_prob, value, advantage, target, reset), counts, read, state = (
        [next(taken) for _ in part] for part in parts
    )
    return rows, _Taken(
        *(action, log_prob, value, advantage, target, reset),
        *(counts[0] if counts else None, read, tuple(state)),
    )


class UpdatePrograms:
    """The program of an update, made when a minibatch can have it.

    The first step of Adam is torch's, which makes its averages. Where a program has failed once,
    torch takes the minibatch, to do it or to say what is wrong, and all that come behind it.

    Args:
        make: returns the program for minibatches of so many sequences.
    """

    def __init__(self, make: Callable[[int], MinibatchProgram]) -> None:
        self._make: Callable[[int], MinibatchProgram] | None = make
        self._program: MinibatchProgram | None = None

    def run(self, numbers: list[int], profile: Profile) -> dict[str, float] | None:
        """As `MinibatchProgram.run`; None: this minibatch has to go the ordinary way."""
        if self._make is None:
            return None
        if self._program is None:
            try:
                self._program = self._make(len(numbers))
            except NotCoveredError:
                return None
        log = self._program.run(numbers, profile)
        if log is None:
            self._make = self._program = None
        return log
