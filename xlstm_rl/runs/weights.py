"""The weights of a policy by the names of its files, whatever its modules are wrapped in."""

from collections.abc import Iterable, Mapping
from functools import reduce

import torch
from torch import Tensor, nn

_COMPILED = "_orig_mod"  # torch.compile's name for what it was given
_PARALLEL = "module"  # that of DataParallel, DistributedDataParallel and AveragedModel

_RENAMED = (
    ("context.", "auxiliary."),
    ("network.actor.", "network.trunk."),
    ("network.critic.", "network.critic_trunk."),
)
"""Prefixes of weights in files of version 0.1, and what they are called today."""


def plain_names(keys: Iterable[str]) -> dict[str, str]:
    """Return the names of weights without the parts that `torch.compile` or a wrapper has added.

    Args:
        keys: of a state dict.

    Returns:
        The plain name of each key.
    """
    keys = list(keys)
    names = {key: _without(key, _COMPILED, _PARALLEL) for key in keys}
    if len(set(names.values())) < len(keys):  # somebody has an attribute `module` of their own
        names = {key: _without(key, _COMPILED) for key in keys}
    return names


def plain_weights(policy: nn.Module) -> dict[str, Tensor]:
    """Return a policy's weights and statistics by their plain names, each in memory of its own.

    What was put beside the parts of the policy and holds the same weights once more, such as
    `policy.fast = torch.compile(policy.network)`, is left out.
    """
    state: dict[str, Tensor] = policy.state_dict()
    names = {key: _without(key, _COMPILED, _PARALLEL) for key in state}
    own = [key for key, name in names.items() if name.split(".")[0] in _PARTS]
    found: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for key, name in plain_names(own).items():
        value = state[key]
        # a file has room for each name: weights that are tied are written twice
        found[name] = value.clone() if value.data_ptr() in addresses else value.contiguous()
        addresses.add(value.data_ptr())
    for key in state.keys() - set(own):
        if state[key].data_ptr() not in addresses:
            found[names[key]] = state[key].contiguous()
    return found


_PARTS = ("normalizer", "network", "auxiliary")


def todays_weights(weights: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """Return the weights of a file by the names that a policy's state dict expects.

    Args:
        weights: by the names in the file: plain ones, those of version 0.1, or such as
            `network._orig_mod.trunk`, of a compiled network.
        expected: the keys of the state dict.
    """
    ours = {name: key for key, name in plain_names(expected).items()}
    found = {}
    for key, name in plain_names(weights).items():
        for old, new in _RENAMED:
            name = new + name[len(old) :] if name.startswith(old) else name
        found[ours.get(name, name)] = weights[key]
    return found


def network_dtype(weights: Mapping[str, Tensor]) -> torch.dtype:
    """Return the dtype that holds every weight of the network, by today's names."""
    floats = [
        value.dtype
        for key, value in weights.items()
        if key.startswith("network.") and value.is_floating_point()
    ]
    return reduce(torch.promote_types, floats, floats[0] if floats else torch.float32)


def _without(key: str, *parts: str) -> str:
    return ".".join(part for part in key.split(".") if part not in parts)
