"""Encoders, heads and the policy that acts."""

from xlstm_rl.policy.actor import Actor
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.graph_actor import GraphActor
from xlstm_rl.policy.policy import Policy

__all__ = ["Actor", "GraphActor", "Policy", "PolicyConfig"]
