"""Random shapes, strides, resets, gates, losses: the sLSTM in C against the float64 reference."""

import copy
import random
from typing import Any

import pytest
import torch

from xlstm_rl import kernels
from xlstm_rl.kernels.layers import ACTIVATIONS
from xlstm_rl.kernels.native import slstm_block as native
from xlstm_rl.kernels.native.arguments import bytes_for
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.memory.slstm_block import SLSTMBlock

CASES = 40


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def laid_out(pick, x):
    """The same numbers in another order of memory."""
    how = pick.choice(["dense", "dense", "turned", "spread", "offset"])
    if how == "turned" and x.dim() > 1:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if how == "spread":
        return torch.stack([x, torch.full_like(x, 7)], -1)[..., 0]
    if how == "offset":
        return torch.cat([torch.full((1,), 7, dtype=x.dtype), x.flatten()])[1:].view(x.shape)
    return x


def resets(pick, gen, B, T):
    if pick.random() < 0.2:
        return None
    return torch.rand(B, T, generator=gen) < pick.choice([0.0, 0.05, 0.3, 1.0])


def hold(outs, grads, exact_outs, exact_grads, seed, limit=2e-5):
    """Every number finite, and within `limit` of the largest of its tensor."""
    largest = max([float(g.abs().max()) for g in exact_grads if g.numel()], default=0.0)
    for kind, got, want in (("output", outs, exact_outs), ("gradient", grads, exact_grads)):
        for n, (a, b) in enumerate(zip(got, want, strict=True)):
            assert a.shape == b.shape and a.isfinite().all(), f"seed {seed}: {kind} {n}"
            if b.numel():
                least = max(1e-2 * largest if kind == "gradient" else 0.0, 1e-30)
                size = max(float(b.abs().max()), least)
                error = float((a.double() - b).abs().max()) / size
                assert error < limit, f"seed {seed}: {kind} {n} is {error:.2g} off"


def differentiate(outs, wanted, touch):
    gen = torch.Generator().manual_seed(7)
    weights = [torch.randn(o.shape, generator=gen).to(o.dtype) for o in outs]
    loss = sum((outs[n] * weights[n]).sum() for n in touch)
    grads = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return [o.detach() for o in outs], [g.detach() for g in grads]


@pytest.mark.parametrize("seed", range(CASES))
def test_the_cell(seed):
    pick, gen = random.Random(seed), torch.Generator().manual_seed(seed)
    torch.set_num_threads(pick.randint(1, 3))
    B, T, H = pick.choice([0, 1, 2, 5, 8, 9, 30]), pick.randint(1, 40), pick.randint(1, 4)
    D = pick.choice([1, 2, 7, 8, 9, 15, 16, 17, 24, 32, 40, 64])
    forget_gate = pick.choice(["sigmoid", "exponential"])
    shapes = [(B, T, 4, H, D), (4, H, D, D), (4, H, D)]
    given = [torch.randn(s, generator=gen) for s in shapes]
    given[0][:, :, :2] *= pick.choice([0.1, 1.0, 1.0, 5.0])
    given[0][:, :, 1] -= 2.0 * (forget_gate == "exponential")
    given[1] *= pick.choice([0.0, 0.5, 1.0]) * D**-0.5
    if pick.random() < 0.6:
        given += [torch.randn(B, H, D, generator=gen) for _ in range(4)]
        given[5] = given[5].abs() + 0.5
        if pick.random() < 0.5:
            for s in given[3:]:
                s[::2] = 0
    reset, touch = resets(pick, gen, B, T), pick.sample(range(5), pick.randint(1, 5))
    results = []
    for dtype, backend in ((torch.float32, "native"), (torch.float64, "reference")):
        xs = [x.to(dtype).requires_grad_() for x in given]
        ys = [laid_out(pick, x) for x in xs] if backend == "native" else xs
        options = {"forget_gate": forget_gate, "backend": backend}
        y, state = kernels.slstm(*ys[:3], reset, tuple(ys[3:]) or None, **options)
        results += differentiate([y, *state], xs, touch)
    hold(*results, seed)


@pytest.mark.parametrize("seed", range(CASES))
def test_the_block(seed):
    pick, gen = random.Random(seed), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(pick.randint(1, 3))
    B, T, H = pick.choice([0, 1, 2, 5, 9, 20]), pick.randint(1, 40), pick.randint(1, 4)
    feedforward: dict[str, Any] = {"feedforward_proj_factor": pick.choice([0.0, 0.5, 4 / 3, 3.0])}
    if feedforward["feedforward_proj_factor"]:
        feedforward |= {
            "feedforward_activation": pick.choice(list(ACTIVATIONS)),
            "feedforward_bias": pick.random() < 0.5,
            "round_to": pick.choice([1, 8, 64]),
        }
    config = MemoryConfig(
        pattern="s",
        backend="native",
        num_heads=H,
        width=H * pick.choice([1, 3, 8, 10, 16, 20, 32]),
        conv1d_kernel_size=pick.choice([0, 2, 3, 4, 4, 7]),
        **feedforward,
        forget_gate=pick.choice(["sigmoid", "exponential"]),
    )
    block = SLSTMBlock(config, 3, 1)
    with torch.no_grad():
        for p in block.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=gen))
    exact = copy.deepcopy(block).double()
    exact._options = exact._options._replace(backend="reference")
    shapes = [(B, T, config.width)]
    if pick.random() < 0.6:
        shapes += [(B, *shape) for shape in block.state_shapes.values()]
    given = [torch.randn(s, generator=gen) for s in shapes]
    if len(given) > 1:
        given[-2] = given[-2].abs() + 0.5
    reset = resets(pick, gen, B, T)
    touch = pick.sample(range(1 + len(block.state_shapes)), pick.randint(1, 5))
    results = []
    for module, dtype in ((block, torch.float32), (exact, torch.float64)):
        xs = [x.to(dtype).requires_grad_() for x in given]
        ys = [laid_out(pick, x) for x in xs] if module is block else xs
        y, state = module(ys[0], tuple(ys[1:]) or None, reset)
        results += differentiate([y, *state], [*xs, *module.parameters()], touch)
    # a norm over one or two channels is ill-conditioned: torch is up to 5e-4 off there
    hold(*results, seed, 1e-4 if config.width < 4 else 2e-5)


def test_what_is_lent_holds_what_c_saves():
    for B, T, (D, H), W, F in [
        (0, 1, (4, 2), 0, 0),
        (1, 1, (1, 1), 2, 1),
        (3, 7, (30, 3), 4, 17),
        (16, 128, (128, 4), 4, 192),
        (5, 33, (64, 2), 0, 64),
        (5, 33, (64, 64), 9, 0),
    ]:
        sizes = native.Forward(B, T, D, H, W, F, 0, 0, 1, saved=1)
        needed = bytes_for("xl_slstm_block_saved_bytes", sizes)
        assert needed <= 4 * native.saved_size(B, T, D, H, W, F)
