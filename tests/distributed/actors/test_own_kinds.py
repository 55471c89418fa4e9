"""Kinds of a script's own, in actors that know the library's alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from xlstm_rl import RecurrentPPO
from xlstm_rl.memory.config import MEMORIES, GRUConfig, register_memory
from xlstm_rl.policy.config import DISTRIBUTIONS, CategoricalConfig, register_distribution

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class OwnConfig(GRUConfig):
    """A memory that a script registers, and no module when it is imported."""

    kind: Literal["own"] = "own"  # type: ignore[assignment]


@dataclass(frozen=True)
class OwnChoicesConfig(CategoricalConfig):
    """The same for a distribution."""

    kind: Literal["own"] = "own"  # type: ignore[assignment]


def test_what_a_script_registered_goes_to_the_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    for registry in (MEMORIES, DISTRIBUTIONS):
        monkeypatch.setattr(registry, "classes", dict(registry.classes))
        monkeypatch.setattr(registry, "_targets", dict(registry._targets))
    register_memory(OwnConfig, MEMORIES.target("gru"))
    register_distribution(OwnChoicesConfig, DISTRIBUTIONS.target("categorical"))
    with RecurrentPPO(
        "CartPole-v1",
        env={"num_envs": 2},
        memory={"kind": "own", "width": 8},
        policy={"action_distribution": {"kind": "own"}},
        agent={"rollout_steps": 8, "minibatches": 1, "actors": 1},
        logger={"kind": "none"},
    ) as agent:
        agent.learn(16)
        assert agent.steps_done == 16
