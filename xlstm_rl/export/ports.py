"""What goes into an exported step and comes out of it: names, shapes, dtypes."""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch

from xlstm_rl.envs.spaces.leaves import space_leaves
from xlstm_rl.policy.policy_module import PolicyModule


@dataclass(frozen=True)
class Port:
    """A tensor that goes in or comes out, with the batch in front of its shape."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    def example(self, rows: int) -> torch.Tensor:
        """Return zeros for `rows` environments."""
        return torch.zeros(rows, *self.shape, dtype=self.dtype)

    def description(self) -> dict[str, Any]:
        """Return it as plain values, for a file's metadata."""
        shape = ["batch", *self.shape]
        return {"name": self.name, "shape": shape, "dtype": str(self.dtype).split(".")[-1]}


@dataclass(frozen=True)
class Ports:
    """Those of a policy, in the order of the step's arguments and results.

    | input | what |
    |---|---|
    | `obs`, or `obs.<leaf>` of a nested space | raw observations, in the space's dtype |
    | `reset` | bool, true where the observation is the first of an episode |
    | `reward` | of the last action, where the policy has `policy.previous_reward` |
    | `action_mask` | bool, a flag for each output, where it has `policy.action_mask: info` |
    | `state.<name>` | zeros at first, then what `next.<name>` was |

    Outputs are `action` (or `action.<leaf>`), in the environment's units, and `next.<name>`.
    """

    observation: tuple[Port, ...]
    others: tuple[Port, ...]
    state: tuple[Port, ...]
    action: tuple[Port, ...]

    @property
    def inputs(self) -> tuple[Port, ...]:
        """All inputs."""
        return (*self.observation, *self.others, *self.state)

    @property
    def input_names(self) -> list[str]:
        """Their names."""
        return [port.name for port in self.inputs]

    @property
    def output_names(self) -> list[str]:
        """Names of all outputs."""
        after = [port.name.replace("state.", "next.", 1) for port in self.state]
        return [*(port.name for port in self.action), *after]


def ports_of(policy: PolicyModule) -> Ports:
    """Return the ports of a policy."""
    others = [Port("reset", (), torch.bool)]
    if policy.auxiliary.reads_reward:
        others.append(Port("reward", (), torch.float32))
    if policy.auxiliary_reader.source == "info":
        others.append(Port("action_mask", (policy.auxiliary_reader.mask.width,), torch.bool))
    state = policy.initial_state(1, critic=False)
    tensors = policy.unpack_state(state, 1)
    names = [f"state.previous.{name}" for name in policy.auxiliary.state_shapes]
    for memory, module in policy.network.memories(critic=False).items():
        names += [".".join(("state", memory, *_path(key))) for key in module.state_keys]
    return Ports(
        _leaves("obs", policy.observation_space),
        tuple(others),
        tuple(
            Port(name, tuple(x.shape[1:]), x.dtype) for name, x in zip(names, tensors, strict=True)
        ),
        _leaves("action", policy.action_space),
    )


def _path(key: Any) -> tuple[str, ...]:
    return key if isinstance(key, tuple) else (key,)


def _leaves(name: str, space: gymnasium.Space[Any]) -> tuple[Port, ...]:
    """Return a port for each leaf of a space, in the environment's own dtype."""
    return tuple(
        Port(
            f"{name}.{leaf.name}" if leaf.path else name,
            tuple(leaf.space.shape or ()),
            torch.from_numpy(np.zeros(1, leaf.space.dtype)).dtype,
        )
        for leaf in space_leaves(space)
    )
