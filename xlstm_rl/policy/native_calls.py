"""A whole network, forward and back, as calls that are laid out once for many minibatches."""

from torch import Tensor

from xlstm_rl.kernels.native.held import NotCoveredError
from xlstm_rl.kernels.native.program import Call, sum_into
from xlstm_rl.kernels.native.sequence_chain import SequenceChain
from xlstm_rl.memory import StateTensors
from xlstm_rl.policy.native_chains import Lease


class NetworkCalls:
    """The chains of a network on tensors that stay where they are.

    Nobody may change the network while it lives: it looks once.

    Args:
        lease: of the chains.
        inputs: what they read, one for the actor and one for a separate critic, `[B, T, n]` each.
        tensors: the state of all memories before the first step.
        reset: where episodes start, `[B, T]`.

    Raises:
        NotCoveredError: C cannot read one of them.
    """

    def __init__(
        self, lease: Lease, inputs: list[Tensor], tensors: StateTensors, reset: Tensor
    ) -> None:
        self._lease, self._reset, self._resets = lease, reset, True
        built, split = lease.built, lease.built.state_of_actor
        actor, critic, act, criticize = built.chains
        assert actor is not None and act is not None and criticize is not None
        self._actor, self._critic, self._act, self._criticize = actor, critic, act, criticize
        self._chains = [one for one in (actor, critic, act, criticize) if one is not None]
        self._forms = [one for one in built.forms if one is not None]
        if not all([one.take() for one in self._forms]):
            raise NotCoveredError
        self.features = seen = _placed(actor.place(inputs[0], reset, tensors[:split]))
        """What the actor's memory made, `[B, T, D]`."""
        if critic is not None:
            seen = _placed(critic.place(inputs[1], reset, tensors[split:]))
        self.outputs = _placed(act.place(self.features, None, ()))
        """Of the action head, `[B, T, num_outputs]`."""
        self.value = _placed(criticize.place(seen, None, ())).squeeze(-1)
        """`[B, T]`."""
        self.forward = [one.call for one in self._forms]
        for chain in self._chains:
            self.forward += chain.forward_calls()
        self.work_bytes = max(one.work_bytes for one in self._chains)
        """What the calls work in."""

    def backward(self, doutputs: Tensor, dvalue: Tensor) -> tuple[list[Call], list[Tensor]]:
        """Return the calls of the way back, and where the gradients of the weights will be.

        Args:
            doutputs: the gradient of `outputs`, which stays where it is.
            dvalue: that of `value`.

        Returns:
            The gradients are in the order of `lease.built.weights`, and last until the next way
            back that overwrites.

        Raises:
            NotCoveredError: a weight stands in two places, or in none.
        """
        found: dict[int, Tensor] = {}
        calls: list[Call] = []
        from_outputs = self._back(self._act, doutputs, found, calls)
        from_value = self._back(self._criticize, dvalue.unsqueeze(-1), found, calls)
        assert from_outputs is not None and from_value is not None  # heads have them
        if self._critic is None:
            calls.append(sum_into(from_outputs, from_value))
        self._back(self._actor, from_outputs, found, calls)
        if self._critic is not None:
            self._back(self._critic, from_value, found, calls)
        for form in self._forms:
            own, call = form.placed_gradients(found[id(form.weight)], found[id(form.bias)])
            _add(found, form.own_weights(), own)
            calls.append(call)
        weights = self._lease.built.weights
        if {*map(id, weights)} - {*found}:
            raise NotCoveredError
        return calls, [found[id(weight)] for weight in weights]

    def _back(
        self, chain: SequenceChain, dy: Tensor, found: dict[int, Tensor], calls: list[Call]
    ) -> Tensor | None:
        dx, own = chain.place_back(dy, overwrites=True)
        _add(found, chain.weights, own)
        calls += chain.backward_calls()
        return dx

    def resets(self, there: bool) -> None:
        """Say whether an episode starts anywhere: where none does, nothing looks for one."""
        if there is self._resets:
            return
        self._resets = there
        for chain in self._chains:
            chain.resets_at(self._reset.data_ptr() if there else None)

    def work_at(self, address: int) -> None:
        """Say where there are `work_bytes`."""
        for chain in self._chains:
            chain.work_at(address)


def _placed(y: Tensor | None) -> Tensor:
    if y is None:
        raise NotCoveredError
    return y


def _add(found: dict[int, Tensor], weights: list[Tensor], grads: list[Tensor]) -> None:
    for weight, grad in zip(weights, grads, strict=True):
        if id(weight) in found:
            raise NotCoveredError
        found[id(weight)] = grad
