"""What each memory of a network reads of the network's input."""

from collections.abc import Iterator

from torch import Tensor

from xlstm_rl.memory import Memory
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.actor_critic import ActorCritic


def memory_inputs(
    network: ActorCritic, observation: Observation
) -> Iterator[tuple[str, Memory, Tensor]]:
    """Yield name, memory and its input `[..., D]`, in the order of their tensors in the state.

    Args:
        network: of a policy.
        observation: as the network reads it, `[..., *shape]`.
    """
    trunks = (network.trunk, network.critic_trunk)
    for (name, memory), trunk in zip(network.memories().items(), trunks, strict=False):
        encoder = network.trunk.encoder
        if trunk is not None and trunk.encoder is not None:
            encoder = trunk.encoder
        yield name, memory, encoder(observation)
