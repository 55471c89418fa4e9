"""What the memories to compare with compute, against their papers' equations or torch's modules."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from xlstm_rl.memory import Memory, MemoryConfig, make_memory
from xlstm_rl.memory.transformer import GRUGate, rotated

B, T, D = 2, 19, 16


def random_(memory: Memory) -> Memory:
    """Float64, away from the initial weights."""
    memory.double()
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return memory


def normed(x: Tensor, weight: Tensor) -> Tensor:
    return layer_norm(x, (D,), weight, eps=1e-5)


def test_the_frame_stack_is_an_mlp_on_the_last_steps_of_the_episode() -> None:
    memory = random_(make_memory(MemoryConfig("framestack", width=D, frames=3)))
    x = torch.randn(1, 7, D, dtype=torch.float64)
    reset = torch.zeros(1, 7, dtype=torch.bool)
    reset[0, 4] = True
    y, _ = memory(x, None, reset)
    zero = torch.zeros(D, dtype=torch.float64)
    seen = [[zero, zero, 0], [zero, 0, 1], [0, 1, 2], [1, 2, 3], [zero, zero, 4], [zero, 4, 5]]
    network = memory.blocks[0].network
    for t, frames in enumerate(seen):
        stacked = [one if isinstance(one, Tensor) else x[0, one] for one in frames]
        torch.testing.assert_close(y[0, t], network(torch.cat(stacked)))


def test_the_minimal_gru_is_that_of_the_paper() -> None:
    memory = random_(make_memory(MemoryConfig("mingru", width=D, state_factor=1, final_norm=False)))
    block = memory.blocks[0]
    w_z, w_h = block.gates.weight.chunk(2)
    b_z, b_h = block.gates.bias.chunk(2)
    x = torch.randn(B, T, D, dtype=torch.float64)
    y, _ = memory(x)
    h = torch.zeros(B, D, dtype=torch.float64)
    for t in range(T):  # section 3.1.3
        u = normed(x[:, t], block.norm.weight)
        z = torch.sigmoid(u @ w_z.T + b_z)
        h = (1 - z) * h + z * (u @ w_h.T + b_h)
        torch.testing.assert_close(y[:, t], x[:, t] + block.out(h), rtol=1e-12, atol=1e-12)


def test_the_transformer_attends_as_torch_does_to_rotated_keys_in_its_window() -> None:
    window = 6
    memory = make_memory(
        MemoryConfig("transformer", width=D, num_heads=2, window=window, final_norm=False)
    )
    block = random_(memory).blocks[0]
    x = torch.randn(B, T, D, dtype=torch.float64)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[1, [5, 6, 14]] = True
    y, _ = memory(x, None, reset)
    q, k, v = block.qkv(normed(x, block.attention_norm.weight)).unflatten(-1, (3, 2, 8)).unbind(2)
    places = torch.arange(T, dtype=torch.float64)
    # RoFormer, equation 15, as complex numbers: a pair is turned by m theta_i
    theta = 10_000.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    turn = torch.polar(torch.ones(T, 4, dtype=torch.float64), places[:, None] * theta)[:, None]
    q, k = (
        torch.view_as_real(torch.complex(one[..., :4], one[..., 4:]) * turn).flatten(-2)
        for one in (q, k)
    )
    distance = places[:, None] - places
    episode = reset.long().cumsum(1)
    mask = (distance >= 0) & (distance < window) & (episode[:, :, None] == episode[:, None])
    heads = (one.transpose(1, 2) for one in (q, k, v))
    read = nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask[:, None])
    middle = x + block.out(read.transpose(1, 2).flatten(2))
    hidden = nn.functional.gelu(block.up(normed(middle, block.norm.weight)))
    torch.testing.assert_close(y, middle + block.down(hidden), rtol=1e-10, atol=1e-10)


def test_a_rotated_product_depends_on_the_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 8, dtype=torch.float64).unbind(0)

    def product(one: int, other: int) -> Tensor:
        return (rotated(q, torch.tensor([one])) * rotated(k, torch.tensor([other]))).sum()

    torch.testing.assert_close(product(5, 2), product(103, 100))
    assert not math.isclose(float(product(5, 2)), float(product(5, 3)))


def test_the_gate_of_a_gtrxl_lets_little_through_at_first() -> None:
    gate = GRUGate(D).double()
    x, y = torch.randn(2, 5, D, dtype=torch.float64).unbind(0)
    w_r, w_z, w_c = gate.from_read.weight.chunk(3)
    u_r, u_z = gate.from_stream.weight.chunk(2)
    r = torch.sigmoid(y @ w_r.T + x @ u_r.T)
    z = torch.sigmoid(y @ w_z.T + x @ u_z.T - 2.0)
    c = torch.tanh(y @ w_c.T + (r * x) @ gate.from_reset.weight.T)
    torch.testing.assert_close(gate(x, y), (1 - z) * x + z * c, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_mamba2_is_the_state_space_of_the_paper() -> None:
    memory = make_memory(
        MemoryConfig("mamba2", width=D, num_heads=2, state_size=3, chunk_size=4, final_norm=False)
    )
    block = random_(memory).blocks[0]
    x = torch.randn(B, T, D, dtype=torch.float64)
    y, _ = memory(x)
    z, mixed, dt = block.project(normed(x, block.norm.weight)).split([32, 38, 2], -1)
    taps = block.conv_weight.flip(1)  # [C, 4], the present step first
    past = nn.functional.pad(mixed, (0, 0, 3, 0))
    mixed = sum(past[:, 3 - i : 3 - i + T] * taps[:, i] for i in range(4)) + block.conv_bias
    z = z.clone()
    inner, b, c = nn.functional.silu(mixed).split([32, 3, 3], -1)
    dt = (1 + (dt + block.step_bias).exp()).log()
    a = -block.log_a.exp()
    for row in range(B):
        for head in range(2):
            own = slice(16 * head, 16 * head + 16)
            h = torch.zeros(3, 16, dtype=torch.float64)
            for t in range(T):  # section 2.1, with the discretisation of Mamba
                step = dt[row, t, head]
                h = (a[head] * step).exp() * h + step * torch.outer(b[row, t], inner[row, t, own])
                inner_y = c[row, t] @ h + block.skip[head] * inner[row, t, own]
                z[row, t, own] = inner_y * nn.functional.silu(z[row, t, own])
    z = z * (z.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * block.inner_norm
    torch.testing.assert_close(y, x + block.out(z), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_rwkv_is_finch_of_the_paper() -> None:
    memory = make_memory(
        MemoryConfig("rwkv", width=D, num_heads=2, lora_rank=3, chunk_size=4, final_norm=False)
    )
    block = random_(memory).blocks[0]
    x = torch.randn(B, T, D, dtype=torch.float64)
    y, _ = memory(x)
    lora_in = block.lora_in.weight.view(5, 3, D)

    def lerp(u: Tensor, back: Tensor, mu: Tensor) -> Tensor:
        return u + (back - u) * mu  # equation 9

    for row in range(B):
        state = torch.zeros(2, 8, 8, dtype=torch.float64)
        last_u = last_c = torch.zeros(D, dtype=torch.float64)
        for t in range(T):
            u = normed(x[row, t], block.time_norm.weight)
            inputs = []
            for which in range(5):  # equations 10 to 13
                low = torch.tanh(lora_in[which] @ lerp(u, last_u, block.mix_x))
                mu = block.mix[which] + low @ block.lora_out[which]
                inputs.append(lerp(u, last_u, mu))
            r, k, v, g = (
                layer(one)
                for layer, one in zip(
                    (block.read, block.key, block.value, block.gate), inputs, strict=False
                )
            )
            decay = (-block.decay_out(torch.tanh(block.decay_in(inputs[4]))).exp()).exp()
            heads = []
            for head in range(2):
                own = slice(8 * head, 8 * head + 8)
                added = torch.outer(k[own], v[own])
                o = r[own] @ (state[head] + block.bonus[head][:, None] * added)  # equation 16
                state[head] = decay[own][:, None] * state[head] + added
                heads.append(nn.functional.layer_norm(o, (8,), block.head_norm[own], eps=1e-5))
            middle = x[row, t] + block.out(torch.cat(heads) * nn.functional.silu(g))
            c = normed(middle, block.channel_norm.weight)
            key = block.channel_key(lerp(c, last_c, block.channel_mix[0])).clamp(min=0).square()
            read = torch.sigmoid(block.channel_read(lerp(c, last_c, block.channel_mix[1])))
            expected = middle + read * block.channel_value(key)
            torch.testing.assert_close(y[row, t], expected, rtol=1e-10, atol=1e-10)
            last_u, last_c = u, c


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_the_gradients_of_an_rwkv_that_forgets_all_stay_finite(size: float) -> None:
    memory = random_(make_memory(MemoryConfig("rwkv", width=D))).float()
    x, decay = torch.randn(B, T, D), memory.get_parameter("blocks.0.decay_out.bias")
    results = []
    for bias in (60.0, size):  # exp(-exp(60)) is 0 already
        with torch.no_grad():
            decay.fill_(bias)
        y, _ = memory(x)
        results.append(torch.autograd.grad(y.square().sum(), list(memory.parameters())))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("step_bias", [0.0, -1e4], ids=["steps", "steps of 0"])
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_the_gradients_of_a_mamba2_that_forgets_all_stay_finite(
    size: float, step_bias: float
) -> None:
    memory = random_(make_memory(MemoryConfig("mamba2", width=D))).float()
    x, log_a = torch.randn(B, T, D), memory.get_parameter("blocks.0.log_a")
    with torch.no_grad():
        memory.get_parameter("blocks.0.step_bias").fill_(step_bias)
    results = []
    for value in (60.0, size):  # exp(-exp(60) dt) is 0 already
        with torch.no_grad():
            log_a.fill_(value)
        y, _ = memory(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), list(memory.parameters()))])
    state, steps = memory.initial_state(B), []
    with torch.no_grad():
        for t in range(T):
            y, state = memory.step(x[:, t], state)
            steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), results[1][0], rtol=1e-4, atol=1e-4)
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["framestack", "mingru", "transformer", "mamba2", "rwkv"])
@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize("value", [math.nan, 1e300], ids=["nan", "a norm overflows"])
def test_what_is_not_finite_stays_in_its_row_and_episode(
    kind: str, where: str, value: float
) -> None:
    memory = random_(make_memory(MemoryConfig(kind, width=D)))
    x = torch.randn(B, T, D, dtype=torch.float64)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[0, 9] = True
    expected, _ = memory(x, None, reset)
    broken = x.clone()
    broken[0, 4 if where == "before" else 15] = value
    broken.requires_grad_()
    y, state = memory(broken, None, reset)
    torch.testing.assert_close(y[1], expected[1])
    whole = slice(9, T) if where == "before" else slice(0, 15)
    torch.testing.assert_close(y[0, whole], expected[0, whole])
    if where == "before":
        assert all(state[key].isfinite().all() for key in memory.state_keys)
    (gradient,) = torch.autograd.grad(y[1].sum() + y[0, 9:15].sum(), broken)
    assert gradient[1].isfinite().all()
    if where == "before":
        assert gradient[0, 9:].isfinite().all()
