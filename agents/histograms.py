"""Distributions to be shown: what a policy does, one for each part of an action, and gates."""

from typing import Any

from torch import Tensor

from xlstm_rl.callbacks.memory_watch import MemoryWatch
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.envs.spaces.leaves import space_leaves, take
from xlstm_rl.policy.policy import Policy
from xlstm_rl.runs.run import Run

_MOST = 8
"""Of a part with more numbers, the first ones are shown."""


def action_histograms(policy: Policy, rollout: Rollout) -> dict[str, Tensor]:
    """Return the actions of a rollout in the environment's units, `[N]` for each name.

    `actions`; `actions/<part>` where the space is a Dict or Tuple; with `/<index>` behind it where
    an action has several numbers or choices. Autoreset steps are left out.
    """
    data = rollout.data
    chosen: Any = policy.network.distribution.to_env(data["action"][data["valid"]])
    found: dict[str, Tensor] = {}
    for leaf in space_leaves(policy.action_space):
        name = "/".join(part for part in ("actions", leaf.name) if part)
        values = take(chosen, leaf.path)
        if values.ndim == 1:
            found[name] = values
            continue
        flat = values.reshape(values.shape[0], -1)
        for index in range(min(_MOST, flat.shape[1])):
            found[f"{name}/{index}"] = flat[:, index]
    return found


def log_histograms(
    run: Run, step: int, policy: Policy, rollout: Rollout, watch: MemoryWatch
) -> None:
    """Log a rollout's actions, and gates that were measured, where a run shows them."""
    if run.takes_histograms:
        run.histograms(step, action_histograms(policy, rollout) | watch.take_gates())
