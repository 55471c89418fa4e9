"""The episodes of all processes in the rollout of each."""

import math
from typing import TYPE_CHECKING, Any

from xlstm_rl.collection.rollout import Rollout

if TYPE_CHECKING:
    from xlstm_rl.distributed.ranks import Ranks


def share_episodes(rollout: Rollout, ranks: "Ranks") -> None:
    """Put the episodes that ended in the rollouts of all processes into each rollout.

    They stand in the order of their ends. Environments are counted on from process to process.
    """
    num_envs = rollout.data.batch_size[0]
    own: dict[str, Any] = {
        "returns": rollout.episode_returns,
        "lengths": rollout.episode_lengths,
        "ends": [(t, ranks.index * num_envs + env) for t, env in rollout.episode_ends],
        "successes": rollout.episode_successes,
        "infos": rollout.episode_infos,
        "all_valid": rollout.all_valid(),
    }
    parts = ranks.gathered(own)
    ends = _joined(parts, "ends")
    order = sorted(range(len(ends)), key=ends.__getitem__)
    keys = dict.fromkeys(key for part in parts for key in part["infos"])
    said = {key: _said(parts, key) for key in keys}

    def ordered(values: list[Any]) -> list[Any]:
        return [values[place] for place in order]

    rollout.episode_ends = ordered(ends)
    rollout.episode_returns = ordered(_joined(parts, "returns"))
    rollout.episode_lengths = ordered(_joined(parts, "lengths"))
    rollout.episode_successes = _joined(parts, "successes")
    rollout.episode_infos = {key: ordered(values) for key, values in said.items()}
    rollout.ranks = ranks.size
    rollout.are_others_valid = all(part["all_valid"] for part in parts)


def _joined(parts: list[dict[str, Any]], name: str) -> list[Any]:
    return [value for part in parts for value in part[name]]


def _said(parts: list[dict[str, Any]], key: str) -> list[float]:
    """Return what the episodes of all said under a key; NaN where a process has none of it."""
    return [
        value
        for part in parts
        for value in part["infos"].get(key, [math.nan] * len(part["returns"]))
    ]
