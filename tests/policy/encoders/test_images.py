from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl import RecurrentPPO
from xlstm_rl.policy import PolicyConfig
from xlstm_rl.policy.encoders.images import ImageEncoder


def _space(*shape: int, high: int = 255) -> spaces.Box:
    return spaces.Box(0, high, shape, np.uint8)


def _encoder(space: spaces.Box, **config: Any) -> ImageEncoder:
    torch.manual_seed(3)
    return ImageEncoder(space, 8, PolicyConfig(**config))


@pytest.mark.parametrize(("kind", "side"), [("nature", 40), ("impala", 12), ("flat", 5)])
def test_the_layout_of_an_image_does_not_matter(kind: str, side: int) -> None:
    last = _encoder(_space(side, side + 2, 3), image_encoder=kind)
    first = _encoder(_space(3, side, side + 2), image_encoder=kind)
    image = torch.randint(256, (2, 4, side, side + 2, 3), dtype=torch.uint8)
    out = last(image)
    assert out.shape == (2, 4, 8)
    torch.testing.assert_close(first(image.movedim(-1, -3)), out, rtol=1e-4, atol=1e-5)
    gray = _encoder(_space(side, side + 2), image_encoder=kind)
    channel = _encoder(_space(1, side, side + 2), image_encoder=kind)
    one = image[..., 0]
    torch.testing.assert_close(gray(one), channel(one.unsqueeze(-3)), rtol=1e-4, atol=1e-5)


def test_the_layout_can_be_said_where_it_cannot_be_seen() -> None:
    assert _encoder(_space(40, 40, 40)).channels_last
    assert not _encoder(_space(40, 40, 40), image_layout="chw").channels_last
    assert _encoder(_space(5, 6, 7), image_layout="hwc").channels_last


def test_pixels_are_scaled_by_their_bound() -> None:
    camera, levels = _encoder(_space(2, 2)), _encoder(_space(2, 2, high=10))
    assert camera.scale == pytest.approx(1 / 255) and levels.scale == pytest.approx(1 / 10)
    flat = _encoder(_space(2, 2), image_encoder="flat")
    image = torch.tensor([[0, 51], [102, 255]], dtype=torch.uint8)
    layer = flat.projection[0]
    expected = torch.tensor([0.0, 0.2, 0.4, 1.0]) @ layer.weight.T + layer.bias
    torch.testing.assert_close(flat(image), expected)


def test_the_nature_network_is_that_of_the_paper_at_its_size() -> None:
    encoder = _encoder(_space(4, 84, 84), image_encoder="nature")
    weights = [tuple(p.shape) for p in encoder.parameters() if p.ndim > 1]
    assert weights == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (8, 512)]


def test_auto_takes_what_fits_and_nature_refuses_what_does_not() -> None:
    sizes = {
        side: sum(isinstance(m, torch.nn.MaxPool2d) for m in _encoder(_space(side, side)).modules())
        for side in (1, 35, 36)
    }
    assert sizes == {1: 3, 35: 3, 36: 0}
    with pytest.raises(ValueError, match=r"'nature' needs images of 36 x 36 or more, got 7 x 7"):
        _encoder(_space(7, 7, 3), image_encoder="nature")


def test_a_rollout_keeps_images_as_bytes_and_statistics_leave_them_alone(any_spaces: Any) -> None:
    space = spaces.Dict(eye=_space(8, 8, 3), speed=spaces.Box(-1, 1, (2,)))
    agent = RecurrentPPO(
        lambda: any_spaces(space, spaces.Discrete(2)),
        env={"num_envs": 2},
        memory={"kind": "gru", "width": 8},
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
        logger={"kind": "none"},
    ).learn(32)
    assert agent._collector is not None
    rollout = agent._collector.collect()
    assert rollout.data["observation", "eye"].dtype == torch.uint8
    assert set(rollout.raw_observation.keys()) == {"speed"}
    keys = [key for key in agent.policy.normalizer.state_dict() if "moments" in key]
    assert keys and all(key.startswith("parts.1.") for key in keys)
