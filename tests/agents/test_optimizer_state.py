"""The state of an optimiser, handed to one that may have other arguments."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from xlstm_rl import RecurrentPPO
from xlstm_rl.agents.optimization import load_optimizer
from xlstm_rl.agents.optimizers import torch_optimizer

from .test_optimizers import EVERY

Make = Callable[[list[nn.Parameter]], Optimizer]


def weights(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """A matrix, a vector and one that is frozen: without a gradient."""
    torch.manual_seed(0)
    made = [nn.Parameter(torch.randn(*shape, dtype=dtype)) for shape in ((4, 3), (3,), (2, 5))]
    return [made[0], made[1], made[2].requires_grad_(False)]


def step(optimizer: Optimizer, times: int = 1) -> None:
    for number in range(times):
        for group in optimizer.param_groups:
            for weight in group["params"]:
                if weight.requires_grad:
                    weight.grad = torch.full_like(weight, 0.1 * (number + 1))
        optimizer.step()


def trained(make: Make, times: int = 3) -> dict[str, Any]:
    optimizer = make(weights())
    step(optimizer, times)
    return copy.deepcopy(optimizer.state_dict())


def same_state(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def plain(state: dict[str, Any]) -> list[Any]:
        return [
            (key, name, value.tolist() if isinstance(value, torch.Tensor) else value)
            for key, values in sorted(state["state"].items())
            for name, value in sorted(values.items())
        ]

    return plain(one) == plain(other)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Adam, lambda p: Adam(p, amsgrad=True)),
        (Adam, lambda p: AdamW(p, amsgrad=True)),
        (RMSprop, lambda p: RMSprop(p, centered=True)),
        (RMSprop, lambda p: RMSprop(p, momentum=0.9)),
        (Adam, lambda p: SGD(p, momentum=0.9)),
    ],
)
def test_one_that_needs_other_averages_starts_fresh_and_says_so(
    before: Make, after: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    optimizer = after(weights())
    load_optimizer(optimizer, trained(before))
    said = capsys.readouterr().err
    assert said == "agent.optimizer is another one than before: its state starts fresh\n"
    assert not optimizer.state_dict()["state"]
    step(optimizer)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Adam, lambda p: Adam(p, betas=(0.5, 0.9), fused=True)),
        (lambda p: Adam(p, amsgrad=True), Adam),
        (Adam, lambda p: AdamW(p, weight_decay=0.1)),
        (lambda p: RMSprop(p, centered=True), RMSprop),
        (SGD, lambda p: SGD(p, momentum=0.9)),
        (SGD, SGD),
    ],
)
def test_one_that_has_what_it_needs_goes_on(
    before: Make, after: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    optimizer, state = after(weights()), trained(before)
    load_optimizer(optimizer, state)
    assert not capsys.readouterr().err
    assert same_state(optimizer.state_dict(), state)
    step(optimizer)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "Muon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_optimiser_goes_on_to_the_bit(
    name: str, dtype: torch.dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch_optimizer(name, {}, weights(dtype), 0.01)
    step(before, 3)
    after = torch_optimizer(name, {}, copy.deepcopy(before.param_groups[0]["params"]), 0.01)
    load_optimizer(after, copy.deepcopy(before.state_dict()))
    assert not capsys.readouterr().err
    step(before)
    step(after)
    pairs = zip(before.param_groups[0]["params"], after.param_groups[0]["params"], strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_weight_that_is_frozen_now_keeps_what_it_had() -> None:
    state = trained(lambda p: torch_optimizer("Adafactor", {}, p, 0.01))
    frozen = [weight.requires_grad_(False) for weight in weights()]
    optimizer = torch_optimizer("Adafactor", {}, frozen, 0.01)
    load_optimizer(optimizer, state)
    assert same_state(optimizer.state_dict(), state)


@pytest.mark.parametrize(
    ("name", "part", "shape"),
    [
        ("Adam", "exp_avg", (3, 4)),
        ("Adam", "exp_avg", ()),
        ("Adafactor", "row_var", (3, 1)),
        ("Adafactor", "row_var", (4, 3)),
    ],
)
def test_a_state_of_another_shape_is_refused(name: str, part: str, shape: Any) -> None:
    def make(parameters: list[nn.Parameter]) -> Optimizer:
        return torch_optimizer(name, {}, parameters, 0.01)

    state, optimizer = trained(make), make(weights())
    state["state"][0][part] = torch.zeros(shape)
    with pytest.raises(ValueError, match=rf"{part} of the optimiser has shape .*, expected \["):
        load_optimizer(optimizer, state)
    assert not optimizer.state_dict()["state"]


def test_a_state_of_more_weights_is_refused() -> None:
    state = trained(Adam)
    state["state"][7] = state["state"][0]
    with pytest.raises(ValueError, match="for other weights"):
        load_optimizer(Adam(weights()), state)


class Late(Optimizer):
    """Keeps a second average from its third step on, and draws noise."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for weight in self.param_groups[0]["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            state["count"] = state.get("count", 0) + 1
            state.setdefault("fast", torch.zeros_like(weight)).add_(weight.grad)
            if state["count"] > 2:
                state.setdefault("slow", torch.zeros_like(weight)).add_(state["fast"])
            weight.sub_(torch.rand_like(weight))


class OnlyTrained(Late):
    """Cannot be tried on copies."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.own = True  # which no copy of an optimiser has

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert self.own
        super().step()


@pytest.mark.parametrize("made", [Late, OnlyTrained])
def test_averages_that_come_later_go_on_too(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    optimizer, state = made(weights()), trained(made, 5)
    assert "slow" in state["state"][0]
    load_optimizer(optimizer, state)
    assert not capsys.readouterr().err
    assert same_state(optimizer.state_dict(), state)


def test_nothing_else_notices() -> None:
    parameters, state = weights(), trained(Late, 5)
    before = [weight.clone() for weight in parameters]
    stream = torch.random.get_rng_state()
    load_optimizer(Late(parameters), state)
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert all(torch.equal(one, other) for one, other in zip(parameters, before, strict=True))
    assert all(weight.grad is None for weight in parameters)


@pytest.mark.parametrize(
    ("before", "change", "fresh"),
    [
        ("Adam", {"optimizer_kwargs": {"amsgrad": True}}, True),
        ("RMSprop", {"optimizer_kwargs": {"momentum": 0.9}}, True),
        ("Adafactor", {}, False),
    ],
)
def test_a_run_trains_on_with_them(
    before: str,
    change: dict[str, Any],
    fresh: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    agent = RecurrentPPO(
        "CartPole-v1",
        run_dir=str(tmp_path / "run"),
        total_steps=64,
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1, "optimizer": before},
    )
    with agent:
        agent.learn(16)
    with RecurrentPPO.load(tmp_path / "run", agent=change) as loaded:
        loaded.learn(16)
        assert loaded.steps_done == 32
    assert ("its state starts fresh" in capsys.readouterr().err) == fresh
