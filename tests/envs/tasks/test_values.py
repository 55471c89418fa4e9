import numpy as np
import pytest
import torch

from xlstm_rl.envs.tasks.values import BatchValues


def _signs(values, steps, count):
    drawn = []
    for _ in range(steps):
        values.draw_signs(count)
        drawn.append(np.asarray(values.signs(np.arange(count))).copy())
    return np.stack(drawn)


def test_signs_are_as_random_over_steps_as_over_environments():
    values = BatchValues("cpu", tensors=False)
    values.seed_draws(0)
    signs = _signs(values, 5000, 4)
    assert set(np.unique(signs)) == {-1, 1}
    # 4 standard deviations of a mean of 5000 independent signs are 0.057
    assert (np.abs(signs.mean(0)) < 0.06).all()
    for lag in (1, 2, 61, 62, 63):
        assert (np.abs((signs[lag:] * signs[:-lag]).mean(0)) < 0.06).all()
    for row in range(3):
        assert abs((signs[:, row] * signs[:, row + 1]).mean()) < 0.06


def test_a_seed_starts_the_signs_anew_and_tensors_draw_the_same():
    arrays, tensors = BatchValues("cpu", tensors=False), BatchValues("cpu", tensors=True)
    arrays.seed_draws(3)
    tensors.seed_draws(3)
    first = _signs(arrays, 100, 5)
    np.testing.assert_array_equal(_signs(tensors, 100, 5), first)
    arrays.seed_draws(3)
    np.testing.assert_array_equal(_signs(arrays, 100, 5), first)
    assert (_signs(arrays, 100, 5) != first).any()


@pytest.mark.parametrize("value", [7, "drawn"])
def test_a_mask_and_indices_write_alike(value):
    values = BatchValues("cpu", tensors=True)
    values.draw_signs(4)
    mask = torch.tensor([True, False, False, True])
    written = []
    for rows in (mask, mask.nonzero().squeeze(1)):
        target = torch.zeros(4, dtype=torch.int64)
        values.put(target, rows, values.signs(rows) if value == "drawn" else value)
        written.append(target)
    assert torch.equal(*written)
    assert (written[0] != 0).tolist() == mask.tolist()
