"""A memory from outside: one class, one class of options, and a line or a name."""

import sys
from pathlib import Path

import pytest
import torch

from xlstm_rl import RecurrentPPO, evaluate, load_policy
from xlstm_rl.agents import TrainConfig
from xlstm_rl.cli import main
from xlstm_rl.config import ConfigError, config_to_dict, parse_config
from xlstm_rl.memory import MemoryConfig, make_memory, register_memory
from xlstm_rl.memory.config import MEMORIES

MODULE = """
from dataclasses import dataclass

import torch
from torch import nn

from xlstm_rl.memory import Memory, MemoryConfig
from xlstm_rl.options.fields import Count


@dataclass(frozen=True)
class TraceConfig(MemoryConfig):
    kind: str = "foreign_memory:Trace"
    depth: Count = 1
    decaying: bool = False


class Trace(Memory):
    config_class = TraceConfig

    def __init__(self, config):
        super().__init__(config.width, {"sum": (config.width,)})
        self.decay = 0.5 if config.decaying else 1.0
        layers = [nn.Linear(config.width, config.width) for _ in range(config.depth)]
        self.out = nn.Sequential(*layers)

    def _sequence(self, x, tensors, reset):
        outputs = []
        for t in range(x.shape[1]):
            y, tensors = self._step(x[:, t], tensors, None if reset is None else reset[:, t], False)
            outputs.append(y)
        return torch.stack(outputs, 1), tensors

    def _step(self, x, tensors, reset, inplace):
        (old,) = self.initial_tensors(x.shape[0], x.device, x.dtype) if tensors is None else tensors
        if reset is not None:
            old = old.masked_fill(reset[:, None], 0.0)
        new = self.decay * old + x
        if inplace:
            tensors[0].copy_(new)
        return self.out(new), tensors if inplace else (new,)
"""


@pytest.fixture(autouse=True)
def _foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foreign_memory.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_memory_of_another_module_trains_is_saved_and_loads(tmp_path: Path) -> None:
    options = ["--memory.kind", "foreign_memory:Trace", "--memory.depth", "2", "--memory.decaying"]
    size = ["--env.num-envs", "4", "--agent.rollout-steps", "8", "--total-steps", "64"]
    assert main(["train", *options, *size, "--run-dir", str(tmp_path / "run")]) == 0
    policy = load_policy(tmp_path / "run")
    assert config_to_dict(policy.memory_config) == {
        "kind": "foreign_memory:Trace",
        "width": 64,
        "depth": 2,
        "decaying": True,
    }
    assert len(evaluate(policy, episodes=2).returns) == 2


def test_its_options_are_checked_like_all_others() -> None:
    def refusal(*words: str) -> str:
        with pytest.raises(ConfigError) as caught:
            parse_config(TrainConfig, ["--memory.kind", "foreign_memory:Trace", *words])
        return str(caught.value)

    assert refusal("--memory.depth", "0") == (
        "memory.depth=0: expected an integer >= 1 (from --memory.depth)"
    )
    assert refusal("--memory.dpth", "3").endswith("did you mean --memory.depth?")
    assert refusal("--memory.pattern", "ms") == (
        "--memory.pattern: an option of memory.kind=xlstm, but memory.kind is foreign_memory:Trace"
    )


def test_a_registered_memory_is_one_more_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    import foreign_memory  # type: ignore[import-not-found]

    monkeypatch.setattr(MEMORIES, "classes", dict(MEMORIES.classes))
    register_memory(foreign_memory.TraceConfig, "foreign_memory:Trace")
    memory = make_memory(MemoryConfig(kind="foreign_memory:Trace", width=8))
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(memory(x)[0][:, 1], memory.step(x[:, 1], memory.step(x[:, 0])[1])[0])
    assert "foreign_memory:Trace" in MEMORIES.classes


def test_nothing_foreign_is_imported_before_it_is_named() -> None:
    sys.modules.pop("foreign_memory", None)
    RecurrentPPO("CartPole-v1", env={"num_envs": 4}).close()
    assert "foreign_memory" not in sys.modules
