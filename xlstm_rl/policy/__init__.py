"""Encoders, heads and the policy that acts."""

from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.policy import Actor, Policy

__all__ = ["Actor", "Policy", "PolicyConfig"]
