import copy
import math

import pytest
import torch

from xlstm_rl.agents.optimization import RMSprop


def test_rmsprop_takes_the_papers_steps() -> None:
    gradients = torch.randn(5, 3, dtype=torch.float64)
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    expected, average = [1.0] * 3, [0.0] * 3
    optimizer = RMSprop([weight], lr=0.1, alpha=0.9, eps=0.01)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        for i, g in enumerate(gradient.tolist()):
            average[i] = 0.9 * average[i] + 0.1 * g * g
            expected[i] -= 0.1 * g / math.sqrt(average[i] + 0.01)
    assert weight.tolist() == pytest.approx(expected, rel=1e-12)


def test_rmsprop_goes_on_from_a_saved_state() -> None:
    def run(optimizer: RMSprop, weight: torch.Tensor) -> None:
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()

    gradients = torch.randn(3, 4)
    first, second = torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.ones(4))
    before, after = RMSprop([first], lr=0.1), RMSprop([second], lr=0.3)
    run(before, first)
    second.data.copy_(first.data)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    run(before, first)
    run(after, second)
    assert torch.equal(first, second)
