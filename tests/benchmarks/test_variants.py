"""What was tried for memories beyond a segment still runs, and does what its name says."""

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from xlstm_rl.kernels.native.choose import LOADED

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("learning.variants")
    for name in [name for name in sys.modules if name.partition(".")[0] == "learning"]:
        del sys.modules[name]


def agent_of(variants: ModuleType, **agent: Any) -> Any:
    return variants.StudyPPO(
        "xlstm_rl/MemoryChain-v0",
        env={"num_envs": 4, "kwargs": {"length": 11}},
        memory={"width": 16},
        agent={"rollout_steps": 12, "epochs": 2, "learning_rate": 0.01, **agent},
        logger="none",
    )


@pytest.mark.parametrize("start", ["stored", "refreshed", "burnt_in"])
def test_segments_start_from_the_states_of_the_weights_that_are_asked_for(
    variants: ModuleType, start: str
) -> None:
    seen = []
    with agent_of(variants, segment_steps=4, start=start) as agent:
        minibatch = agent._minibatch

        def look(batch: Any, *rest: Any) -> Any:
            stored = torch.cat([one[-1] for one in agent._rollout.segment_states])
            seen.append(all(bool((row == stored).all(-1).any()) for row in batch.state[-1]))
            return minibatch(batch, *rest)

        agent._minibatch = look
        agent.learn(48)
    half = len(seen) // 2
    # the first minibatch of an update has the weights that acted; rounding may differ
    assert all(seen) is (start == "stored")
    assert not all(seen[half:]) or start == "stored"


@pytest.mark.skipif(not LOADED, reason="this one runs on the C backend")
def test_a_loss_that_asks_for_earlier_observations_falls(variants: ModuleType) -> None:
    losses = []
    with agent_of(variants, recall_coef=1.0, recall_lag=3) as agent:
        agent.learn(48 * 30, on_update=lambda step, metrics: losses.append(metrics["loss/recall"]))
    assert losses[-1] < 0.5 * losses[0], (losses[0], losses[-1])


def test_forget_gates_start_by_the_horizon(variants: ModuleType) -> None:
    memory = variants.ChronoXLSTM(variants.ChronoConfig(width=16, horizon=1000))
    block = memory.blocks[0]
    assert block.gate_bias[-1].item() == pytest.approx(math.log(1000))
    assert block.gate_bias[block.num_heads].item() == pytest.approx(3.0)
