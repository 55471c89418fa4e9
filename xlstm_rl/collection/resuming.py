"""What a collector carries from one rollout to the next, as plain data, and back."""

from typing import Any

import torch
from torch import Tensor

from xlstm_rl.collection.collector import Collector
from xlstm_rl.envs.snapshots.as_made import difference
from xlstm_rl.envs.snapshots.decode import read_snapshot, restore_snapshot
from xlstm_rl.envs.snapshots.encode import take_snapshot
from xlstm_rl.envs.snapshots.graph import SnapshotError


def collector_state(collector: Collector | None) -> dict[str, Any]:
    """Return a collector's state between two rollouts: tensors, text and numbers alone.

    `carried` holds memory states, previous actions, observations and open episodes,
    `environments` what the environments handed over, `made` what they were made with. Where
    something is missing, `problem` says why, and whoever goes on from there begins new episodes.
    """
    if collector is None:
        return {"problem": "no rollout was collected yet"}
    if collector.is_cut_off:
        return {"problem": "the run was stopped within a rollout"}
    try:
        return {
            "carried": _packed(take_snapshot(collector.carried())),
            "environments": _packed(take_snapshot(collector.env)),
            "made": collector.env_as_made,
        }
    except SnapshotError as error:
        return {"problem": f"the environments cannot hand over their state: {error}"}


def restore_collector(collector: Collector, state: dict[str, Any], trust: bool) -> str | None:
    """Let a new collector go on from a state; return why that is impossible, or None.

    Args:
        collector: whose environments were made as those of the state, and begin an episode.
        state: of `collector_state`; from anywhere, for nothing in it is run unless `trust` is set.
        trust: read what environments pickled.
    """
    if "problem" in state:
        return str(state["problem"])
    try:
        carried = read_snapshot(_unpacked(state["carried"]))
        problem = _misfit(collector.carried(), carried)
        if problem is None:  # `made` is absent from checkpoints of before there was one
            problem = difference(state.get("made", {}), collector.env_as_made)
        if problem is not None:
            return problem
        restore_snapshot(collector.env, _unpacked(state["environments"]), trust)
    except SnapshotError as error:
        return f"the environments cannot take over the state: {error}"
    collector.carry_on(carried)
    return None


def _packed(snapshot: dict[str, Any]) -> dict[str, Any]:
    data = bytearray(snapshot["arrays"])
    tensor = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0).byte()
    return {**snapshot, "arrays": tensor}


def _unpacked(state: Any) -> dict[str, Any]:
    if not isinstance(state, dict) or not isinstance(state.get("arrays"), Tensor):
        raise SnapshotError("it is damaged")
    return {**state, "arrays": state["arrays"].numpy().tobytes()}


def _misfit(own: dict[str, Any], found: Any) -> str | None:
    """Return what tells two states of collectors apart in names or shapes; None: nothing does."""
    if not isinstance(found, dict) or found.keys() != own.keys():
        return "the state is that of another version"
    before, now = len(found["flags"][0]), len(own["flags"][0])
    if before != now:
        return f"the run had {before} environments, now there are {now}"
    for name in ("tensors", "critic", "auxiliary", "observation"):
        if _shapes(own[name]) != _shapes(found[name]):
            return f"{name} {_shapes(found[name])} came, expected {_shapes(own[name])}"
    return None


def _shapes(value: Any) -> Any:
    if isinstance(value, tuple):
        return [tuple(one.shape) for one in value]
    if isinstance(value, dict):
        return {name: tuple(one.shape) for name, one in value.items()}
    return tuple(value.shape)
