"""Rollouts of our agents in the keys and shapes of TorchRL's losses and value estimators."""

from tensordict import TensorDict
from torch import Tensor

from xlstm_rl.collection.rollout import Rollout

VALID = "valid"
"""The key of the mark of steps that count; the others only reset an environment."""


def torchrl_rollout(rollout: Rollout) -> TensorDict:
    """Return a rollout as TorchRL's losses and value estimators take it, `[B, T]`.

    `observation` (as the network saw it), `action` (in the policy's units), `action_log_prob`,
    `state_value`, `is_init`, and in `next` `reward`, `terminated`, `truncated`, `done` and
    `state_value`, of the observation that followed in the same episode. Values, rewards and flags
    are `[B, T, 1]`. Its tensors are the rollout's own. `GAE(value_network=None)` gives what our
    updates compute; the memory state before the first step is `rollout.segment_states[0]`.

    Autoreset steps are marked by `valid` and are for the caller to leave out, as by
    `data[data["valid"]]`.
    """
    data = rollout.data

    def column(name: str) -> Tensor:
        found: Tensor = data[name].unsqueeze(-1)
        return found

    terminated, truncated = column("terminated"), column("truncated")
    following = {
        "reward": column("reward"),
        "terminated": terminated,
        "truncated": truncated,
        "done": terminated | truncated,
        "state_value": column("next_value"),
    }
    batch, device = data.batch_size, data.device
    return TensorDict(
        {
            "observation": data["observation"],
            "action": data["action"],
            "action_log_prob": data["log_prob"],
            "state_value": column("value"),
            "is_init": column("reset"),
            VALID: data["valid"],
            "next": TensorDict(following, batch, device),
        },
        batch,
        device,
    )
