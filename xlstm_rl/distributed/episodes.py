"""The episodes of all processes in the rollout of each."""

from typing import TYPE_CHECKING

from xlstm_rl.collection.rollout import Rollout
from xlstm_rl.distributed.actors.parts import joined_episodes, said_of

if TYPE_CHECKING:
    from xlstm_rl.distributed.ranks import Ranks


def share_episodes(rollout: Rollout, ranks: "Ranks") -> None:
    """Put the episodes that ended in the rollouts of all processes into each rollout."""
    num_envs = rollout.data.batch_size[0]
    parts = ranks.gathered((said_of(rollout), num_envs, rollout.all_valid()))
    said, counts, are_valid = zip(*parts, strict=True)
    (
        rollout.episode_returns,
        rollout.episode_lengths,
        rollout.episode_successes,
        rollout.episode_ends,
        rollout.episode_infos,
    ) = joined_episodes(said, counts)
    rollout.ranks = ranks.size
    rollout.are_others_valid = all(are_valid)
