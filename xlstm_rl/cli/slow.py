"""Why a policy of images is slow, and which switch makes it faster."""

from typing import Any

SLOW = 300.0
"""Environment steps per second below which a run on a CPU is told how to be faster."""


def slow_images(agent: Any, steps_per_second: float) -> str | None:
    """Return one line about a slow policy of images; None where there is nothing to say.

    The factors were measured with images of 56 x 56 on one CPU thread: IMPALA's encoder with a
    critic of its own 60 steps/s, with a shared one 119, one linear layer on the pixels 600.

    Args:
        agent: that trains.
        steps_per_second: environment steps, learning included.
    """
    from xlstm_rl.policy.encoders.images import ImageEncoder

    policy = getattr(agent, "policy", None)
    if policy is None or policy.device.type != "cpu" or steps_per_second >= SLOW:
        return None
    encoders = [one for one in policy.network.modules() if isinstance(one, ImageEncoder)]
    kinds = {one.kind for one in encoders} - {"flat"}
    if not kinds:
        return None
    kind, config = sorted(kinds)[0], policy.policy_config
    why = f"the image encoder `{kind}` takes most of the time"
    switches = []
    if config.critic == "separate" and not config.share_encoder:
        why += ", and runs twice, for actor and critic"
        switches.append("--policy.share-encoder or --policy.critic shared (about twice as fast)")
    if kind == "impala" and not any(one.is_small for one in encoders):
        switches.append("--policy.image-encoder nature")
    switches.append("--policy.image-encoder flat (for small pictures, about ten times)")
    return f"{steps_per_second:,.0f} steps/s: {why}; faster: {', '.join(switches)}, or a GPU"
