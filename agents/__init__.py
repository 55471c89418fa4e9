"""The algorithms: one base that collects, updates, logs and saves, and a file per algorithm."""

if __name__ != "xlstm_rl.agents":
    raise ImportError("this folder is the package xlstm_rl.agents: import it by that name")

from typing import TYPE_CHECKING

from xlstm_rl.lazy import lazy_names

if TYPE_CHECKING:
    from xlstm_rl.agents.a2c import RecurrentA2C
    from xlstm_rl.agents.base import RecurrentAgent
    from xlstm_rl.agents.config import A2CConfig, PPOConfig, TrainConfig
    from xlstm_rl.agents.ppo import RecurrentPPO

__all__ = [
    "A2CConfig",
    "PPOConfig",
    "RecurrentA2C",
    "RecurrentAgent",
    "RecurrentPPO",
    "TrainConfig",
    "make_agent",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, __all__, ("config", "base", "ppo", "a2c"))


def make_agent(config: "TrainConfig") -> "RecurrentAgent":
    """Return the agent that a configuration names in `agent.algo`."""
    return agent_class(config).from_config(config)


def agent_class(config: "TrainConfig") -> "type[RecurrentAgent]":
    """Return the class of the algorithm that a configuration names in `agent.algo`."""
    from xlstm_rl.agents.base_config import ALGORITHMS

    found: type[RecurrentAgent] = ALGORITHMS.target(config.agent.algo)
    return found
