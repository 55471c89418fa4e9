"""The first layer of an encoder as one matrix."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.policy.auxiliary.inputs import OBSERVATION, PREVIOUS_ACTION
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.encoders.encoder import JoinedEncoder, make_encoder
from xlstm_rl.policy.encoders.linear_form import MOST_INPUTS, LinearForm, encoder_layers

pytestmark = pytest.mark.skipif(not LOADED, reason="without the C library nothing reads it")

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
PARTS = spaces.Dict(a=VECTOR, b=spaces.Discrete(4, start=2), c=spaces.MultiDiscrete([3, 2]))


def _bare(space: Any, auxiliary: dict[str, int] | None = None) -> nn.Module:
    return make_encoder(space, 8, PolicyConfig(encoder_layers=0), auxiliary)


def _observed(lead: tuple[int, ...]) -> dict[str, Tensor]:
    return {
        "a": torch.randn(*lead, 3),
        "b": torch.randint(4, lead),
        "c": torch.stack([torch.randint(n, lead) for n in (3, 2)], -1),
        PREVIOUS_ACTION: torch.randn(*lead, 2),
        "not read": torch.randn(*lead, 7),
    }


CASES: dict[str, tuple[Any, Any, str | None]] = {
    "choice": (PARTS["b"], None, "b"),
    "choices": (PARTS["c"], None, "c"),
    "parts": (PARTS, None, None),
    "beside parts": (PARTS, {PREVIOUS_ACTION: 2}, None),
}


@pytest.mark.parametrize("lead", [(5,), (2, 5)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_encoder_and_so_are_its_gradients(case: str, lead: tuple[int, ...]) -> None:
    """Against the encoder in float64."""
    space, auxiliary, only = CASES[case]
    torch.manual_seed(0)
    encoder = _bare(space, auxiliary)
    form, wide = LinearForm(encoder), copy.deepcopy(encoder).double()
    x: Any = _observed(lead)
    features = form.features(x[only] if only else x)
    doubled = {n: one.double() if one.is_floating_point() else one for n, one in x.items()}
    expected = wide(doubled[only] if only else doubled)
    assert form.refresh()
    for y in (form(features), features @ form.weight.t() + form.bias):
        torch.testing.assert_close(y.double(), expected, rtol=1e-6, atol=1e-6)
    dy = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, [*LinearForm(wide).own_weights()], dy)
    flat = dy.float().flatten(0, -2)
    mine = form.gradients(flat.t() @ features.flatten(0, -2), flat.sum(0))
    assert len(mine) == len([*encoder.parameters()])
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)


def test_its_weights_are_those_of_now() -> None:
    encoder: Any = _bare(PARTS)
    form, x = LinearForm(encoder), _observed((4,))
    for change in (
        lambda: encoder.encoders[0].weight.data.mul_(2),
        lambda: encoder.scale.fill_(0.3),
        lambda: setattr(encoder.encoders[1].embedding, "weight", nn.Parameter(torch.randn(4, 8))),
    ):
        change()
        assert form.refresh()
        torch.testing.assert_close(form.features(x) @ form.weight.t() + form.bias, encoder(x))
    encoder.encoders[0].weight = nn.Parameter(torch.randn(8, 5))
    assert not form.refresh()


def test_what_is_not_one_matrix() -> None:
    image = spaces.Box(0, 255, (12, 12, 3), np.uint8)
    flat = PolicyConfig(encoder_layers=0, image_encoder="flat")
    for space, options in ((image, flat), (spaces.Dict(a=image, b=VECTOR), flat)):
        assert encoder_layers(make_encoder(space, 8, options)) is None
    assert encoder_layers(_bare(spaces.Discrete(MOST_INPUTS))) is not None
    assert encoder_layers(_bare(spaces.Discrete(MOST_INPUTS + 1))) is None
    encoder: Any = _bare(PARTS)
    encoder.encoders[0] = nn.utils.parametrizations.weight_norm(encoder.encoders[0])
    assert encoder_layers(encoder) is None


def test_a_row_of_linear_layers_needs_none() -> None:
    found = encoder_layers(make_encoder(VECTOR, 8, PolicyConfig()))
    assert found is not None
    assert found[1] is None
    found = encoder_layers(make_encoder(PARTS, 8, PolicyConfig()))
    assert found is not None
    assert found[0][0][0] is found[1]


def test_the_previous_action_does_not_count_in_the_scale_of_the_sum() -> None:
    """What the observation says is as large as without it; another vector beside it counts."""
    for beside, expected in ((PREVIOUS_ACTION, 1.0), ("~previous_reward", 1 / math.sqrt(2))):
        torch.manual_seed(0)
        encoder: Any = make_encoder(VECTOR, 8, PolicyConfig(), {beside: 1})
        joined: Any = encoder[0]
        assert type(joined) is JoinedEncoder
        for one in joined.encoders:
            norms = one.weight.norm(dim=0)
            torch.testing.assert_close(norms, torch.full((one.in_features,), 2**0.5))
        assert float(joined.scale) == pytest.approx(expected)


def test_a_policy_that_was_saved_without_a_scale_keeps_its_own() -> None:
    """The previous action counted there."""
    encoder: Any = make_encoder(VECTOR, 8, PolicyConfig(encoder_layers=0), {PREVIOUS_ACTION: 2})
    assert float(encoder.scale) == 1
    saved = encoder.state_dict()
    del saved["scale"]
    other: Any = make_encoder(VECTOR, 8, PolicyConfig(encoder_layers=0), {PREVIOUS_ACTION: 2})
    assert not any(other.load_state_dict(saved))
    assert float(other.scale) == pytest.approx(1 / math.sqrt(2))
    again = _bare(VECTOR, {PREVIOUS_ACTION: 2})
    again.load_state_dict(other.state_dict())
    seen = _observed((4,))
    x: Any = {OBSERVATION: seen["a"], PREVIOUS_ACTION: seen[PREVIOUS_ACTION]}
    assert torch.equal(again(x), other(x))
    torch.testing.assert_close(encoder(x), other(x) * math.sqrt(2))
