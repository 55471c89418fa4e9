"""Minibatches of PPO as calls that are laid out once an update.

The numbers are to the bit those of `direct_pass`, `direct_loss` and `clipped_adam_step`, one after
the other. What Python does between the calls of a minibatch is a sixth of its time (measured), and
with two threads one of them waits for it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from xlstm_rl.agents.direct import DirectLoss
from xlstm_rl.agents.losses import Log
from xlstm_rl.agents.minibatch_losses import LossInC, LossInTorch, MinibatchLoss
from xlstm_rl.agents.sequences import Sequences
from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.native.adam import placed_adam_step, steps_in_c
from xlstm_rl.kernels.native.held import NotCoveredError
from xlstm_rl.kernels.native.ppo_loss import PlacedLoss
from xlstm_rl.kernels.native.program import Program, Rows
from xlstm_rl.kernels.native.workspace import ALIGNMENT, aligned, allocate
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.auxiliary.inputs import ACTION_MASK
from xlstm_rl.policy.direct import DirectPass, lend_chains
from xlstm_rl.policy.native_calls import NetworkCalls
from xlstm_rl.policy.structure import is_own
from xlstm_rl.profiling import Profile

MOST_CODES = 1 << 24
"""Numbers that the observations of an update are coded as, where some are choices: 64 MiB. Of more,
each minibatch codes its own."""


class Descent(NamedTuple):
    """How a minibatch's gradient becomes a step."""

    optimizer: Optimizer
    parameters: Sequence[nn.Parameter]
    max_grad_norm: float


class Loss(NamedTuple):
    """What is made of what a network says of a minibatch."""

    place: Callable[[Sequences, DirectPass], PlacedLoss | None]
    """Returns the call that makes it; None: it is no call."""

    make: Callable[[Sequences, DirectPass], DirectLoss]
    """Returns the loss itself."""


class MinibatchProgram:
    """Gradient steps on minibatches of an update: as long as it lives, nothing else may change.

    Args:
        network: what learns.
        sequences: of the update.
        count: sequences of a minibatch.
        loss: of a minibatch. Of an observation it is told the action mask alone.
        descent: what takes the steps.

    Raises:
        NotCoveredError: C does not know all of the network or of the step.
    """

    def __init__(
        self, network: ActorCritic, sequences: Sequences, count: int, loss: Loss, descent: Descent
    ) -> None:
        self._network = network
        count_and_steps = count, sequences.reset.shape[1]
        knows = steps_in_c(descent.optimizer, descent.parameters)
        knows = knows and is_own(network, ActorCritic, "_distribution_params")
        lease = lend_chains(network, count_and_steps) if knows and all(count_and_steps) else None
        if lease is None or sequences.reset.numel() * lease.built.num_codes > MOST_CODES:
            raise NotCoveredError
        inputs = lease.built.inputs(sequences.observation)
        if inputs is None:
            raise NotCoveredError
        self._rows, batch, taken = _take(sequences, inputs, count)
        self._calls = calls = NetworkCalls(lease, taken, batch.state, batch.reset)
        weights: list[nn.Parameter] = [*lease.built.weights]
        known, self._parameters = {*map(id, weights)}, descent.parameters
        rest = [one for one in self._parameters if id(one) not in known]
        made = DirectPass(calls.outputs, calls.value, calls.features, _no_way_back)
        self._loss = self._made_loss(loss, batch, made, weights, rest)
        back, grads = calls.backward(self._loss.doutputs, self._loss.dvalue)
        pairs = zip((*weights, *rest), (*grads, *self._loss.drest), strict=True)
        by_weight = {id(weight): grad for weight, grad in pairs}
        if by_weight.keys() != {*map(id, self._parameters)}:
            raise NotCoveredError
        self._grads = [by_weight[id(one)] for one in self._parameters]
        step = placed_adam_step(
            descent.optimizer, self._parameters, self._grads, descent.max_grad_norm
        )
        if step is None:
            raise NotCoveredError
        self._step = step
        self._work = allocate(max(calls.work_bytes, self._loss.work_bytes) + ALIGNMENT)
        calls.work_at(aligned(self._work))
        self._loss.work_at(aligned(self._work))
        self._forward = Program([self._rows.call, *calls.forward, *self._loss.calls])
        self._backward, self._descend = Program(back), Program([step.call])
        self._starts = sequences.reset.any(1).tolist()
        self._is_told = False

    def _made_loss(
        self,
        loss: Loss,
        batch: Sequences,
        made: DirectPass,
        weights: Sequence[nn.Parameter],
        rest: Sequence[nn.Parameter],
    ) -> MinibatchLoss:
        placed = loss.place(batch, made)
        if placed is not None:
            return LossInC(placed, rest, self._network.log_std)
        return LossInTorch(partial(loss.make, batch), made, weights, rest, self._rows.taken)

    def run(self, numbers: list[int], profile: Profile) -> Log | None:
        """Take a step on the sequences `[count]` with these numbers.

        Returns:
            The loss's parts and the gradient's norm, as `gradient_step` has them. None: something
            is not finite, or not as expected; no step was taken.
        """
        log = self._run(numbers, profile)
        if log is None:
            self._loss.undo()
        return log

    def _run(self, numbers: list[int], profile: Profile) -> Log | None:
        with profile.part("forward"):
            self._rows.choose(numbers)
            self._calls.resets(any([self._starts[n] for n in numbers]))
            if self._forward.run() or not self._loss.forward():
                return None
        with profile.part("backward"):
            if not self._loss.backward() or self._backward.run():
                return None
        with profile.part("optimizer"):
            if self._descend.run():
                return None
            self._tell()
        return {**self._loss.take_parts(), "grad_norm": self._step.norm.value}

    def _tell(self) -> None:
        """Show torch the gradients, and once that the weights are others than before."""
        if self._is_told and isinstance(self._loss, LossInC):
            return
        if not self._is_told:
            note_overwritten(self._parameters)
        self._is_told = True
        for weight, grad in zip(self._parameters, self._grads, strict=True):
            weight.grad = grad


def _take(
    sequences: Sequences, inputs: Sequence[Tensor], count: int
) -> tuple[Rows, Sequences, list[Tensor]]:
    """Return what takes a minibatch's rows, and where they are then.

    Args:
        sequences: of the update.
        inputs: what the network reads of their observations.
        count: sequences of a minibatch.

    Returns:
        The second are the sequences without their observations, but for the action mask. The
        last are the inputs.

    Raises:
        NotCoveredError: C cannot read one of them.
    """
    own = [sequences.action, sequences.log_prob, sequences.value, sequences.advantage]
    own += [sequences.target, sequences.reset]
    valid = [] if sequences.valid is None else [sequences.valid]
    seen = sequences.observation
    masks = [] if isinstance(seen, Tensor) or ACTION_MASK not in seen else [seen[ACTION_MASK]]
    parts: list[Sequence[Tensor]] = [own, valid, masks, inputs, sequences.state]
    rows = Rows([one.contiguous() for part in parts for one in part], count)
    taken = iter(rows.taken)
    columns, counts, mask, read, state = ([next(taken) for _ in part] for part in parts)
    action, log_prob, value, advantage, target, reset = columns
    batch = Sequences(
        *({ACTION_MASK: mask[0]} if mask else {}, action, log_prob, value, advantage, target),
        *(reset, counts[0] if counts else None, tuple(state), sequences.least_scale),
    )
    return rows, batch, read


def _no_way_back(*_: Tensor | None) -> None:
    raise AssertionError("a laid out network goes back by its calls")


class UpdatePrograms:
    """The program of an update, made when a minibatch can have it.

    The first step of Adam is torch's, which makes its averages. Where there is no program, or it
    has failed once, torch takes the minibatch, to do it or to say what is wrong, and all that come
    behind it.

    Args:
        make: returns the program for minibatches of so many sequences.
        optimizer: what takes the steps.
    """

    def __init__(self, make: Callable[[int], MinibatchProgram], optimizer: Optimizer) -> None:
        self._make: Callable[[int], MinibatchProgram] | None = make
        self._program: MinibatchProgram | None = None
        self._optimizer = optimizer

    def run(self, numbers: list[int], profile: Profile) -> Log | None:
        """As `MinibatchProgram.run`; None: this minibatch has to go the ordinary way."""
        if self._make is None or not self._optimizer.state:
            return None
        if self._program is None:
            try:
                self._program = self._make(len(numbers))
            except NotCoveredError:
                self._make = None
                return None
        log = self._program.run(numbers, profile)
        if log is None:
            self._make = self._program = None
        return log
