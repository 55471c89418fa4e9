"""A memory is a function of its inputs and weights to ``torch.func``, to any derivative, and to
``torch.export``."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, func, nn
from torch.autograd import functional

from xlstm_rl.memory import Memory, MemoryConfig, StateTensors, XLSTMStack, make_memory
from xlstm_rl.memory.config import MEMORIES
from xlstm_rl.options.fields import own_fields

# torch's forward mode compiles its own formulas at its first use
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)

B, T, N = 2, 4, 3
STEP_SIZE = 1e-6


VARIANTS: dict[str, dict[str, Any]] = {  # each part of a block among them
    "m": {"pattern": "m"},
    "s": {"pattern": "s", "conv1d_kernel_size": 0, "feedforward_bias": True},
    "ms": {"pattern": "ms", "forget_gate": "exponential", "slstm_num_heads": 1},
}
for _kind, _options in MEMORIES.classes.items():
    if _kind != "xlstm":
        blocks = {"num_blocks": 2} if "num_blocks" in own_fields(_options) else {}
        VARIANTS[_kind] = {"kind": _kind, **blocks}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def options(request: pytest.FixtureRequest) -> dict[str, object]:
    """Small ones."""
    blocks = {} if "kind" in request.param else {"num_heads": 2}
    if request.param.get("pattern", "s") != "s":
        blocks["chunk_size"] = 2
    return {"width": 8, **blocks, **request.param}


def inputs(memory: Memory) -> tuple[Tensor, Tensor, StateTensors]:
    """N sequences [N, B, T, D] and resets, and a state that the memory itself came to."""
    x = torch.randn(N, B, T, memory.width, dtype=torch.float64)
    reset = torch.rand(N, B, T) < 0.3
    reset[1] = False
    with torch.no_grad():
        _, tensors = memory.forward_tensors(torch.randn(B, 3, memory.width, dtype=torch.float64))
    return x, reset, tensors


def assert_close(got: object, want: object, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.fixture
def population(memory: Memory) -> list[Memory]:
    """Memories of one kind with different weights."""
    members = [copy.deepcopy(memory) for _ in range(N)]
    with torch.no_grad():
        for i, member in enumerate(members):
            for parameter in member.parameters():
                parameter.add_(0.1 * i * torch.randn_like(parameter))
    return members


@pytest.mark.parametrize("recorded", [True, False], ids=["grad", "no_grad"])
def test_vmap_over_inputs_equals_a_loop(memory: Memory, recorded: bool) -> None:
    x, reset, tensors = inputs(memory)
    with torch.set_grad_enabled(recorded):
        mapped = func.vmap(lambda x, r: memory.forward_tensors(x, tensors, r))(x, reset)
        stepped = func.vmap(lambda x, r: memory.step_tensors(x, tensors, r))(
            x[:, :, 0], reset[:, :, 0]
        )
        unbroken = func.vmap(lambda x: memory.forward_tensors(x))(x)
        for n in range(N):
            one = memory.forward_tensors(x[n], tensors, reset[n])
            assert_close((mapped[0][n], tuple(s[n] for s in mapped[1])), one)
            one = memory.step_tensors(x[n, :, 0], tensors, reset[n, :, 0])
            assert_close((stepped[0][n], tuple(s[n] for s in stepped[1])), one)
            assert_close(unbroken[0][n], memory.forward_tensors(x[n])[0])


def test_vmap_hands_out_states_as_tensordicts(memory: Memory) -> None:
    x, _, _ = inputs(memory)
    y, state = func.vmap(lambda x: memory(x))(x)
    y_step, after = func.vmap(lambda x, s: memory.step(x, s))(x[:, :, 0], state)
    for n in range(N):
        want, state_n = memory(x[n])
        assert_close(y[n], want)
        want, after_n = memory.step(x[n, :, 0], state_n)
        assert_close(y_step[n], want)
        for key in memory.state_keys:
            assert_close(after[n][key], after_n[key])


def test_vmap_over_weights_equals_a_loop(memory: Memory, population: list[Memory]) -> None:
    (x, *_), (reset, *_), tensors = inputs(memory)
    stacked, _ = func.stack_module_state(population)

    def run(weights: dict[str, Tensor], reset: Tensor | None) -> Tensor:
        state = memory.pack_state(tensors, B)
        return func.functional_call(memory, weights, (x, state, reset))[0]

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return run(weights, reset).pow(3).sum()

    with_resets = func.vmap(lambda w: run(w, reset))(stacked)
    without = func.vmap(lambda w: run(w, None))(stacked)
    gradients = func.vmap(func.grad(loss))(stacked)
    for n, member in enumerate(population):
        y = member.forward_tensors(x, tensors, reset)[0]
        assert_close(with_resets[n], y)
        assert_close(without[n], member.forward_tensors(x, tensors)[0])
        assert_close(run({name: w[n] for name, w in stacked.items()}, reset), y)
        want = torch.autograd.grad(y.pow(3).sum(), list(member.parameters()))
        got = [gradients[name][n] for name, _ in member.named_parameters()]
        assert_close(got, list(want), 1e-8)


def test_first_derivatives_of_every_kind_agree(memory: Memory) -> None:
    (x, *_), (reset, *_), tensors = inputs(memory)

    def run(row: Tensor) -> Tensor:
        changed = torch.cat([row.expand(1, T, -1), x[1:]])
        return memory.forward_tensors(changed, tensors, reset)[0]

    def step(row: Tensor) -> Tensor:
        return memory.step_tensors(row.expand(B, -1), tensors, reset[:, 0])[0]

    row, v = torch.randn(2, memory.width, dtype=torch.float64).unbind(0)
    for function in (run, step):
        with torch.no_grad():
            up, down = function(row + STEP_SIZE * v), function(row - STEP_SIZE * v)
        _, along = func.jvp(function, (row,), (v,))
        torch.testing.assert_close(along, (up - down) / (2 * STEP_SIZE), rtol=1e-4, atol=1e-5)
        assert_close(functional.jvp(function, row, v)[1], along)
        jacobian = func.jacrev(function)(row)
        assert_close(jacobian @ v, along)
        assert_close(func.jacfwd(function)(row), jacobian)
        assert_close(functional.jacobian(function, row, vectorize=True), jacobian)


def test_second_derivatives_of_every_kind_agree(memory: Memory) -> None:
    (x, *_), (reset, *_), tensors = inputs(memory)

    def loss(row: Tensor) -> Tensor:
        changed = torch.cat([row.expand(1, T, -1), x[1:]])
        y, state = memory.forward_tensors(changed, tensors, reset)
        return y.sin().sum() + sum(s.sin().sum() for s in state)

    def gradient(row: Tensor) -> Tensor:
        row = row.detach().requires_grad_()
        return torch.autograd.grad(loss(row), row)[0]

    row, v = torch.randn(2, memory.width, dtype=torch.float64).unbind(0)
    hessian = functional.hessian(loss, row)
    difference = (gradient(row + STEP_SIZE * v) - gradient(row - STEP_SIZE * v)) / (2 * STEP_SIZE)
    scale = max(1.0, float(hessian.abs().max()))
    torch.testing.assert_close(hessian @ v, difference, rtol=0, atol=1e-5 * scale)
    for same in (
        functional.hessian(loss, row, vectorize=True),
        func.hessian(loss)(row),
        func.jacfwd(func.jacfwd(loss))(row),
        func.jacrev(func.jacfwd(loss))(row),
    ):
        assert_close(same / scale, hessian / scale)
    assert_close(functional.hvp(loss, row, v)[1] / scale, hessian @ v / scale)


def test_second_derivatives_of_the_weights_agree(memory: Memory) -> None:
    (x, *_), (reset, *_), tensors = inputs(memory)
    names, weights = zip(*memory.named_parameters(), strict=True)
    directions = [torch.randn_like(w) for w in weights]

    def loss(*weights: Tensor) -> Tensor:
        state = memory.pack_state(tensors, B)
        given = dict(zip(names, weights, strict=True))
        return func.functional_call(memory, given, (x, state, reset))[0].sin().sum()

    first = torch.autograd.grad(loss(*weights), weights, create_graph=True)
    along = sum((g * d).sum() for g, d in zip(first, directions, strict=True))
    got = torch.autograd.grad(along, weights)
    every = tuple(range(len(weights)))
    _, want = func.jvp(func.grad(loss, argnums=every), weights, tuple(directions))
    assert_close(list(got), list(want), 1e-7)


class _Sequence(nn.Module):
    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory

    def forward(self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None) -> object:
        return self.memory.forward_tensors(x, tensors, reset)


class _Step(_Sequence):
    def forward(self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None) -> object:
        return self.memory.step_tensors(x, tensors, reset)


@pytest.mark.parametrize("form", [_Sequence, pytest.param(_Step, marks=pytest.mark.slow)])
@pytest.mark.few(4)
def test_export_equals_the_memory(memory: Memory, form: type[_Sequence]) -> None:
    (x, *_), (reset, *_), tensors = inputs(memory)
    if form is _Step:
        x, reset = x[:, 0], reset[:, 0]
    module = form(memory)
    program = torch.export.export(module, (x, tensors, reset)).module()
    assert_close(program(2 * x, tensors, reset), module(2 * x, tensors, reset))
    if isinstance(memory, XLSTMStack):
        x = x.requires_grad_()
        second = [
            torch.autograd.grad(
                torch.autograd.grad(run(x, tensors, reset)[0].sum(), x, create_graph=True)[0]
                .square()
                .sum(),
                x,
            )
            for run in (program, module)
        ]
        assert_close(*second)


def test_an_exported_sequence_refuses_what_it_would_get_wrong() -> None:
    memory = make_memory(MemoryConfig(width=8, num_heads=2, pattern="ms")).requires_grad_(False)
    x = torch.randn(B, T, 8)
    program = torch.export.export(_Sequence(memory), (x, None, None)).module()
    with pytest.raises(RuntimeError, match='backend="reference"'):
        func.jvp(lambda x: program(x, None, None)[0], (x,), (x,))
