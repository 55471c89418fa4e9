"""Whether a policy can be evaluated in an environment, found without playing."""

from xlstm_rl.evaluation.environments import EnvSource, opened
from xlstm_rl.evaluation.native import fits_natively, plays_natively
from xlstm_rl.policy.policy import Policy
from xlstm_rl.seeding import global_streams


def check_fits(policy: Policy, source: EnvSource) -> None:
    """Make one environment as `evaluate` would, and close it; no random stream moves.

    Args:
        policy: what is to be evaluated.
        source: where its environments come from, of `find_source`.

    Raises:
        ValueError: the environment is unknown or cannot be made, or its spaces are not the
            policy's.
    """
    with global_streams(0, policy.device):
        if plays_natively(source, policy) and fits_natively(policy, source.config):
            return
        with opened(source, policy, 1, None):
            pass
