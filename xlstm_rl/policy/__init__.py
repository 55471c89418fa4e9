"""Encoders, heads and the policy that acts."""

from typing import TYPE_CHECKING

from xlstm_rl.lazy import lazy_names
from xlstm_rl.policy.config import PolicyConfig

if TYPE_CHECKING:
    from xlstm_rl.policy.actor import Actor
    from xlstm_rl.policy.graph_actor import GraphActor
    from xlstm_rl.policy.policy import Policy

__all__ = ["Actor", "GraphActor", "Policy", "PolicyConfig"]

if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, __all__, ("actor", "graph_actor", "policy"))
