"""One deterministic step of a policy as a module on plain tensors: what all formats export."""

import copy

import torch
from torch import Tensor, nn

from xlstm_rl.envs.spaces.leaves import is_nested, space_leaves, take
from xlstm_rl.export.masks import ObservedMask
from xlstm_rl.export.ports import Ports, ports_of
from xlstm_rl.policy.policy_module import PolicyModule


class ExportedStep(nn.Module):
    """Raw observations and a state in, actions of the environment and the state after out.

    Arguments and results are in the order of `ports`. It holds a float32 copy of the policy on the
    CPU, without the parts that only a critic needs.

    Args:
        policy: any.
    """

    def __init__(self, policy: PolicyModule) -> None:
        super().__init__()
        self.policy = copy.deepcopy(policy).to("cpu", torch.float32).eval()
        network = self.policy.network
        network.critic_trunk = None
        del network.value_head
        self.ports: Ports = ports_of(self.policy)
        self._is_nested = is_nested(policy.observation_space)
        self._names = [leaf.name for leaf in space_leaves(policy.observation_space)]
        self._action_paths = [leaf.path for leaf in space_leaves(policy.action_space)]
        in_observation = self.policy.auxiliary_reader.source == "observation"
        self.mask = ObservedMask(self.policy) if in_observation else None

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Take one step for a batch of environments."""
        count, others = len(self._names), len(self.ports.others)
        leaves = inputs[:count]
        raw = dict(zip(self._names, leaves, strict=True)) if self._is_nested else leaves[0]
        named = {
            port.name: x
            for port, x in zip(self.ports.others, inputs[count : count + others], strict=True)
        }
        mask = named.get("action_mask")
        if self.mask is not None and isinstance(raw, dict):
            mask = self.mask(raw)
        action, after = self.policy.step(
            raw,
            inputs[count + others :],
            named["reset"],
            auxiliary=(named.get("reward"), mask),
        )
        return (*(take(action, path) for path in self._action_paths), *after)
