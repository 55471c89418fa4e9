"""A rollout as named tensors and what stands beside them, and rollouts of several actors as one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from xlstm_rl.collection.rollout import Rollout

_DATA, _RAW, _STATE = "data", "raw", "state"
_SEPARATOR = "\x1f"  # stands in no key


def tensors_of(rollout: Rollout) -> dict[str, Tensor]:
    """Return all tensors of a rollout, batch first, by name."""
    found = {_name(_DATA, key): one for key, one in _leaves(rollout.data)}
    raw = rollout.raw_observation
    if isinstance(raw, TensorDictBase):
        found |= {_name(_RAW, key): one for key, one in _leaves(raw)}
    else:
        found[_RAW] = raw
    for segment, state in enumerate(rollout.segment_states):
        found |= {_name(_STATE, (str(segment), str(i))): one for i, one in enumerate(state)}
    return found


def said_of(rollout: Rollout) -> dict[str, Any]:
    """Return what a rollout says of its episodes."""
    return {
        "returns": rollout.episode_returns,
        "lengths": rollout.episode_lengths,
        "successes": rollout.episode_successes,
        "ends": rollout.episode_ends,
        "infos": rollout.episode_infos,
        "segments": len(rollout.segment_states),
    }


def joined_rollout(
    parts: Sequence[Mapping[str, Tensor]],
    said: Sequence[Mapping[str, Any]],
    device: torch.device,
) -> Rollout:
    """Return the rollouts of several actors as one, their environments one behind the other.

    Args:
        parts: what `tensors_of` returned of each.
        said: what `said_of` returned of each.
        device: where the tensors go; they are copies in any case.
    """
    joined = {name: torch.cat([part[name] for part in parts]).to(device) for name in parts[0]}
    batch = joined[_name(_DATA, ("reset",))].shape
    data, raw = TensorDict({}, batch, device), TensorDict({}, batch, device)
    states: dict[int, list[Tensor]] = {}
    for name, tensor in joined.items():
        kind, *key = name.split(_SEPARATOR)
        if kind == _STATE:
            states.setdefault(int(key[0]), []).append(tensor)
        elif key:
            (data if kind == _DATA else raw)[tuple(key)] = tensor
    segments = range(said[0]["segments"])
    return Rollout(
        data,
        [tuple(states.get(segment, ())) for segment in segments],
        joined.get(_RAW, raw),
        *joined_episodes(said, [part[_name(_DATA, ("reset",))].shape[0] for part in parts]),
    )


def joined_episodes(
    said: Sequence[Mapping[str, Any]], num_envs: Sequence[int]
) -> tuple[list[float], list[int], list[float], list[tuple[int, int]], dict[str, list[float]]]:
    """Return returns, lengths, successes, ends and infos of the episodes of several rollouts.

    They stand in the order of their ends; environments are counted on from rollout to rollout.

    Args:
        said: what `said_of` returned of each.
        num_envs: environments of each.
    """
    firsts = [sum(num_envs[:index]) for index in range(len(num_envs))]
    ends = [
        (t, first + env) for one, first in zip(said, firsts, strict=True) for t, env in one["ends"]
    ]
    order = sorted(range(len(ends)), key=ends.__getitem__)

    def ordered(values: list[Any]) -> list[Any]:
        return [values[place] for place in order]

    def all_of(name: str) -> list[Any]:
        return [value for one in said for value in one[name]]

    keys = dict.fromkeys(key for one in said for key in one["infos"])
    infos = {
        key: [
            value
            for one in said
            for value in one["infos"].get(key, [math.nan] * len(one["returns"]))
        ]
        for key in keys
    }
    return (
        ordered(all_of("returns")),
        ordered(all_of("lengths")),
        all_of("successes"),
        ordered(ends),
        {key: ordered(values) for key, values in infos.items()},
    )


def _leaves(data: TensorDictBase) -> list[tuple[tuple[str, ...], Tensor]]:
    return [
        ((key,) if isinstance(key, str) else key, one)
        for key, one in data.items(include_nested=True, leaves_only=True)
    ]


def _name(kind: str, key: tuple[str, ...]) -> str:
    return _SEPARATOR.join((kind, *key))
