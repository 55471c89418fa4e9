"""The gates that memories show are those that their states follow."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from xlstm_rl.callbacks.memory_health import forget_gates
from xlstm_rl.memory import Memory, StateTensors, make_memory

B, T, D = 3, 7, 16
KINDS = {
    "m": {"pattern": "m", "num_heads": 2},
    "s": {"pattern": "s", "num_heads": 2},
    "ms exponential": {"pattern": "ms", "num_heads": 2, "forget_gate": "exponential"},
    "m without convolution": {"pattern": "m", "num_heads": 4, "conv1d_kernel_size": 0},
    "ms with sigmoid input gates": {"pattern": "ms", "num_heads": 2, "input_gate": "sigmoid"},
    "ms without normalizer": {"pattern": "ms", "num_heads": 2, "normalizer": False},
    "lstm": {"kind": "lstm", "num_blocks": 2},
    "gru": {"kind": "gru", "num_blocks": 2},
    "mingru": {"kind": "mingru", "num_blocks": 2},
    "mamba2": {"kind": "mamba2", "num_blocks": 2},
    "rwkv": {"kind": "rwkv", "num_blocks": 2},
}
LINEAR = {"mingru": "h", "mamba2": "S", "rwkv": "S"}
"""Kinds whose state follows their gates directly, and its tensor."""


def _made(options: dict[str, Any]) -> Memory:
    """A memory in float64 whose every weight matters."""
    memory = make_memory({"width": D, **options}).double()
    with torch.no_grad():
        for weight in memory.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return memory


def _input() -> Tensor:
    return torch.randn(B, T, D, dtype=torch.float64)


def _states(memory: Memory, x: Tensor) -> list[StateTensors]:
    """The state before each step, and the last one."""
    states = [memory.initial_tensors(B)]
    for t in range(T):
        states.append(memory.step_tensors(x[:, t], states[-1])[1])
    return states


@torch.no_grad()
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"gru", *LINEAR}])
def test_forget_gates_are_those_that_probing_the_state_finds(kind: str) -> None:
    memory, x = _made(KINDS[kind]), _input()
    found, states = memory.gates(x), _states(memory, x)
    for t in range(1, T):  # a fresh state has nothing to forget
        for block, probed in forget_gates(memory, x[:, t], states[t], states[t + 1]).items():
            gate = found[block].forget[:, t].exp()
            torch.testing.assert_close(gate, probed, rtol=1e-6, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("kind", LINEAR)
def test_forget_gates_are_what_is_left_of_a_change_of_the_state(kind: str) -> None:
    memory, x = _made(KINDS[kind]), _input()
    found, states = memory.gates(x), _states(memory, x)
    for block in "01":
        at = memory.state_keys.index((f"block_{block}", LINEAR[kind]))
        for t in range(T):
            change = torch.randn_like(states[t][at])
            changed = (*states[t][:at], states[t][at] + change, *states[t][at + 1 :])
            left = memory.step_tensors(x[:, t], changed)[1][at] - states[t + 1][at]
            gate = found[block].forget[:, t].exp()
            gate = gate.squeeze(1) if kind == "mingru" else gate
            gate = gate.reshape(*gate.shape, *[1] * (change.ndim - gate.ndim))
            torch.testing.assert_close(left, gate * change, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("input_gate", ["exponential", "sigmoid"])
def test_input_gates_of_an_slstm_are_what_its_normalizer_gains(input_gate: str) -> None:
    memory, x = _made({**KINDS["s"], "input_gate": input_gate}), _input()
    found, states = memory.gates(x)["0"], _states(memory, x)
    at = {key[1]: i for i, key in enumerate(memory.state_keys)}
    n = [state[at["n"]] * state[at["m"]].exp() for state in states]
    for t in range(T):
        gained = n[t + 1] - found.forget[:, t].exp() * n[t]  # n' = f n + i
        torch.testing.assert_close(found.input[:, t].exp(), gained, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_gates_of_an_mlstm_that_looks_at_nothing_are_its_biases() -> None:
    memory: Any = make_memory({"pattern": "m", "width": D, "num_heads": 2}).double()
    found, bias = memory.gates(_input())["0"], memory.blocks[0].gate_bias
    torch.testing.assert_close(found.input, bias[:2].expand(B, T, 2))
    torch.testing.assert_close(found.forget, logsigmoid(bias[2:]).expand(B, T, 2))


@torch.no_grad()
def test_the_input_gate_of_an_mlstm_scales_what_is_written() -> None:
    memory, x = _made(KINDS["m"]), _input()
    before, block = memory.gates(x)["0"], memory.blocks[0]  # type: ignore[index]
    at = {key[1]: i for i, key in enumerate(memory.state_keys)}

    def written() -> Tensor:
        state = memory.step_tensors(x[:, 0], None)[1]  # a fresh state keeps i k alone
        return state[at["n"]] * state[at["m"]].exp()[..., None]

    old = written()
    block.gate_weight[:2] *= 1.5
    ratio = (memory.gates(x)["0"].input - before.input)[:, 0].exp()
    torch.testing.assert_close(written(), old * ratio[..., None], rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_gates_of_a_gru_mix_the_old_state_and_the_new() -> None:
    memory, x = _made(KINDS["gru"]), _input()
    found, states = memory.gates(x)["0"], _states(memory, x)
    keep, new = found.forget.exp(), found.input.exp()
    torch.testing.assert_close(keep + new, torch.ones_like(keep))
    network: Any = memory.network
    for t in range(T):
        h = states[t][0][:, 0]
        pre = x[:, t] @ network.weight_ih_l0.T + network.bias_ih_l0
        own = h @ network.weight_hh_l0.T + network.bias_hh_l0
        r = (pre[:, :D] + own[:, :D]).sigmoid()
        news = (pre[:, 2 * D :] + r * own[:, 2 * D :]).tanh()
        after = keep[:, t, 0] * h + new[:, t, 0] * news
        torch.testing.assert_close(after, states[t + 1][0][:, 0])


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_gates_behind_a_reset_and_from_a_state_are_those_of_the_parts(kind: str) -> None:
    memory, x = _made(KINDS[kind]), _input()
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 4] = True
    _, state = memory.forward_tensors(x[:, :2])
    whole, first = memory.gates(x, None, reset), memory.gates(x[:, :2])
    middle, last = memory.gates(x[:, 2:4], state), memory.gates(x[:, 4:])
    for block, found in whole.items():
        for which in (0, 1):
            parts = torch.cat([one[block][which] for one in (first, middle, last)], 1)
            torch.testing.assert_close(found[which], parts)


def test_a_memory_without_gates_has_none() -> None:
    assert make_memory({"kind": "mlp", "width": D}).gates(torch.zeros(B, T, D)) == {}
