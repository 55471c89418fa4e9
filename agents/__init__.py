"""The algorithms: one base that collects, updates, logs and saves, and a file per algorithm."""

if __name__ != "xlstm_rl.agents":
    raise ImportError("this folder is the package xlstm_rl.agents: import it by that name")

from xlstm_rl.agents.a2c import RecurrentA2C
from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.agents.ppo import RecurrentPPO

__all__ = ["RecurrentA2C", "RecurrentAgent", "RecurrentPPO", "TrainConfig", "make_agent"]

_ALGORITHMS: dict[str, type[RecurrentAgent]] = {
    algorithm.algo: algorithm for algorithm in (RecurrentPPO, RecurrentA2C)
}


def make_agent(config: TrainConfig) -> RecurrentAgent:
    """Return the agent that a configuration names in `agent.algo`."""
    return _ALGORITHMS[config.agent.algo].from_config(config)
