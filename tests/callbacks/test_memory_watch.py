"""How far back gradients reach, and whether memories remember."""

import csv
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from xlstm_rl import RecurrentA2C, RecurrentPPO, make_memory
from xlstm_rl.callbacks.memory_health import MemoryHealth, measure
from xlstm_rl.callbacks.memory_watch import MemoryWarning
from xlstm_rl.memory import Memory
from xlstm_rl.memory.config import MEMORIES as KINDS

B, T = 6, 20
SIZE = {"width": 16, "num_heads": 2}


def health_of(memory: Memory, reset: Any = None) -> MemoryHealth:
    torch.manual_seed(1)
    x = torch.randn(B, T, memory.width)
    found = measure(memory, x, memory.initial_tensors(B), reset)
    assert found is not None
    return found


def forget(memory: Any, bias: float) -> None:
    """Push the forget gates of every block to a bias, whatever is seen."""
    with torch.no_grad():
        for block in memory.blocks:
            if hasattr(block, "gate_weight"):  # mLSTM
                block.gate_weight[block.num_heads :] = 0.0
                block.gate_bias[block.num_heads :] = bias
            else:
                block.input_weight[1] = 0.0
                block.recurrent_weight.zero_()
                block.gate_bias[1] = bias


@pytest.mark.parametrize("pattern", ["m", "s", "ms", "smm"])
@pytest.mark.parametrize("bias", [-6.0, 0.0, 3.0, 8.0])
def test_gates_are_those_of_the_equations(pattern: str, bias: float) -> None:
    memory = make_memory({"pattern": pattern, "width": 16, "num_heads": 2})
    forget(memory, bias)
    found = health_of(memory)
    gate = 1.0 / (1.0 + math.exp(-bias))
    assert set(found.lengths) == {f"{b}.{h}" for b in range(len(pattern)) for h in range(2)}
    for length in found.lengths.values():
        assert length == pytest.approx(-1.0 / math.log(gate), rel=2e-2)
    assert found.near_0 == float(gate < 0.01) and found.near_1 == float(gate > 0.999)


@torch.no_grad()
def test_gates_of_an_lstm_are_those_of_torch() -> None:
    memory: Any = make_memory({"kind": "lstm", "width": 8, "num_blocks": 2})
    found = health_of(memory)
    network: nn.LSTM = memory.network
    torch.manual_seed(1)
    x = torch.randn(B, T, 8)
    _, (h, c) = network(x[:, :-1])
    below, expected = x[:, -1], {}
    for layer in range(2):
        weights = [getattr(network, f"{n}_l{layer}") for n in ("weight_ih", "weight_hh")]
        biases = [getattr(network, f"{n}_l{layer}") for n in ("bias_ih", "bias_hh")]
        pre = below @ weights[0].T + h[layer] @ weights[1].T + sum(biases)
        log = pre[:, 8:16].sigmoid().log()
        expected[f"0.{layer}"] = pytest.approx(float((-1 / log.mean(0)).mean()), rel=1e-3)
        below, _ = torch.lstm_cell(below, (h[layer], c[layer]), *weights, *biases)
    assert found.lengths == expected
    assert found.near_0 == found.near_1 == 0.0


@torch.no_grad()
def test_the_norm_is_that_of_the_state_without_the_convolution() -> None:
    memory = make_memory({"pattern": "m", "width": 8, "num_heads": 2})
    torch.manual_seed(1)
    x = torch.randn(B, T, 8)
    _, state = memory(x)
    block = state["block_0"]
    squares = sum(block[name].flatten(1).square().sum(1) for name in ("C", "n", "m"))
    assert health_of(memory).state_norm == pytest.approx(float(squares.sqrt().mean()), rel=1e-4)


def test_episodes_that_have_just_begun_have_no_past() -> None:
    memory = make_memory({"kind": "gru", "width": 8})
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 1:] = True
    assert measure(memory, torch.randn(B, T, 8), memory.initial_tensors(B), reset) is None
    reset[0, -1] = False  # one goes on: it alone is measured
    assert health_of(memory, reset).past > 0.01
    reset[:] = False
    reset[:, -1] = True  # all begin here: the step before is measured
    torch.manual_seed(1)
    x = torch.randn(B, T, 8)
    shorter = measure(memory, x[:, :-1], memory.initial_tensors(B), None)
    assert shorter is not None and health_of(memory, reset).past == shorter.past


MEMORIES: dict[str, dict[str, Any]] = {
    **{pattern: {"pattern": pattern} for pattern in ("m", "s", "ms", "sm", "mmmm")},
    "exponential": {"pattern": "ms", "forget_gate": "exponential"},
    "no convolution": {"pattern": "ms", "conv1d_kernel_size": 0},
    "sigmoid input gates": {"pattern": "ms", "input_gate": "sigmoid"},
    "no normalizer": {"pattern": "ms", "normalizer": False},
    **{kind: {"kind": kind} for kind in KINDS.classes if kind not in ("xlstm", "mlp")},
}


@pytest.mark.parametrize("name", MEMORIES)
def test_a_fresh_memory_is_healthy(name: str) -> None:
    sizes = {} if "kind" in MEMORIES[name] else {"num_heads": 2}
    found = health_of(make_memory({"width": 16, **sizes, **MEMORIES[name]}))
    least = 0.005 if name == "mamba2" else 0.01  # its first steps are small, as published
    assert found.past > least and found.present > 0.01 and found.moved > 1e-3


class Noise(gymnasium.Env[Any, Any]):
    """Observes noise; episodes of a given length; nothing is to be learnt."""

    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length: int, pay: Callable[[int], float] = lambda episode: 0.0) -> None:
        self.length, self.pay, self.episode = length, pay, -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self.np_random.normal(size=3).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        obs = self.np_random.normal(size=3).astype(np.float32)
        return obs, self.pay(self.episode), self.t == self.length, False, {}


def agent_of(
    algorithm: Any = RecurrentA2C,
    length: int = 10,
    rollout_steps: int = 16,
    memory: dict[str, Any] | None = None,
    pay: Callable[[int], float] = lambda episode: 0.0,
    agent: dict[str, Any] | None = None,
    **others: Any,
) -> Any:
    more = {"minibatches": 1, "epochs": 1} if algorithm is RecurrentPPO else {}
    return algorithm(
        lambda: Noise(length, pay),
        env={"num_envs": 4, "vectorization": "sync"},
        memory=memory if memory and "kind" in memory else {**SIZE, **(memory or {})},
        agent={"rollout_steps": rollout_steps, **more, **(agent or {})},
        **{"logger": {"kind": "none"}, **others},
    )


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_a_dead_memory_is_found_and_said_once(algorithm: Any, critic: str) -> None:
    agent = agent_of(algorithm, policy={"critic": critic})
    for memory in agent.policy.network.memories().values():
        forget(memory, -20.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(6):
            agent.learn(64)
    lines = [str(one.message) for one in caught if one.category is MemoryWarning]
    names = ["the memory is dead"] + ["the critic's memory is dead"] * (critic == "separate")
    assert [line.split(":")[0] for line in lines] == names
    assert all(
        "\n" not in line and "100% of its forget gates are near 0, it forgets at once" in line
        for line in lines
    )


@pytest.mark.parametrize("kind", list(KINDS.classes))
def test_healthy_memories_and_those_without_a_state_are_not_accused(kind: str) -> None:
    agent = RecurrentA2C(
        lambda: Noise(10),
        env={"num_envs": 4, "vectorization": "sync"},
        memory={"kind": kind, "width": 16},
        agent={"rollout_steps": 16},
        logger={"kind": "none"},
    )
    rows: list[dict[str, float]] = []
    agent.learn(64 * 10, lambda _, metrics: rows.append(dict(metrics)))  # warnings are errors
    assert any("memory/past" in row for row in rows) == (kind != "mlp")
    assert ("memory/gradient_reach" in rows[0]) == (kind != "mlp")


def test_a_saturated_memory_is_found() -> None:
    agent = agent_of(memory={"kind": "lstm", "width": 16})
    network: nn.LSTM = agent.policy.network.trunk.memory.network
    with torch.no_grad():
        for bias in (network.bias_ih_l0, network.bias_hh_l0):
            bias.fill_(200.0)  # every gate open: the cell counts its steps, whatever comes
    with pytest.warns(MemoryWarning, match="^the memory is saturated: its output ignores"):
        agent.learn(64 * 3)


def test_a_memory_that_is_lost_beside_its_input_is_told_apart() -> None:
    agent = agent_of()
    with torch.no_grad():  # an encoder whose features are a million times too large
        for parameter in agent.policy.network.trunk.encoder[0].parameters():
            parameter.mul_(1e6)
        agent.policy.network.trunk.encoder = agent.policy.network.trunk.encoder[0]
    with pytest.warns(MemoryWarning, match="^the memory is dead: .*is lost beside its input"):
        agent.learn(64 * 2)


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_is_logged_now_and_then_and_the_reach_always(tmp_path: Path) -> None:
    run = tmp_path / "run"
    agent = agent_of(
        RecurrentPPO,
        agent={"segment_steps": 8, "epochs": 2},
        policy={"critic": "separate"},
        run_dir=str(run),
        logger={},
    )
    agent.learn(64 * 51)
    found = rows_of(run)
    assert {row["memory/gradient_reach"] for row in found} == {"8.0"}
    measured = [n + 1 for n, row in enumerate(found) if row["memory/past"]]
    assert measured == [1, 2, 8, 50]
    for name in ("past", "state_norm", "near_0", "near_1", "length/0.0", "length/0.1"):
        assert found[0][f"memory/{name}"] and found[0][f"critic_memory/{name}"]


def test_updates_of_a_single_pass_are_short_and_watched_half_as_often() -> None:
    measured: list[int] = []

    def note(step: int, metrics: dict[str, float]) -> None:
        if "memory/past" in metrics:
            measured.append(step // 16)

    agent_of(rollout_steps=4, memory={"kind": "lstm", "width": 4}).learn(16 * 201, note)
    assert measured == [1, 2, 8, 100, 200]


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
def test_watching_changes_no_bit_of_training(
    algorithm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train() -> torch.Tensor:
        agent = agent_of(algorithm, memory={"pattern": "ms"})
        agent.learn(64 * 4)
        return torch.cat([p.detach().flatten() for p in agent.parameters])

    watched = train()
    monkeypatch.setattr(
        "xlstm_rl.callbacks.memory_watch.MemoryWatch.on_rollout_end", lambda *_: None
    )
    assert torch.equal(train(), watched)


def test_episodes_much_longer_than_the_reach_are_said_once() -> None:
    agent = agent_of(length=30, rollout_steps=16, total_steps=8_000)
    line = r"^episodes last 30 steps, and gradients reach back 16: .*raise agent\.rollout_steps$"
    with pytest.warns(MemoryWarning, match=line) as caught:
        agent.learn(3_000).learn(2_000)
    assert len(caught) == 1
    segments = agent_of(RecurrentPPO, 30, 32, agent={"segment_steps": 8}, total_steps=4_000)
    with pytest.warns(MemoryWarning, match=r"reach back 8: .*raise agent\.segment_steps$"):
        segments.learn()


def test_a_run_that_goes_on_is_not_measured_by_its_first_returns(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    with agent_of(length=30, rollout_steps=16, total_steps=8_000) as agent:
        agent.learn(64)
        agent.save(tmp_path / "run")
    with RecurrentA2C.load(tmp_path / "run", lambda: Noise(30, lambda episode: 0.0)) as agent:
        agent.learn(5_000)
    assert not [one for one in recwarn if issubclass(one.category, MemoryWarning)]


@pytest.mark.parametrize(
    ("length", "pay"),
    [(20, lambda episode: 0.0), (30, lambda episode: float(episode))],
    ids=["hardly longer", "longer, and it learns"],
)
def test_nothing_is_said_of_a_reach_that_is_enough(
    length: int, pay: Callable[[int], float]
) -> None:
    agent_of(length=length, rollout_steps=16, pay=pay, total_steps=5_000).learn()
