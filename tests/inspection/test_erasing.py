"""What returns lose without a part of the state."""

from typing import Any

import numpy as np
import pytest
import torch

from xlstm_rl import evaluate
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.inspection.erasing import ALL, find_erasing, parts_of

from .policies import made_for, remembers_the_cue, remembers_the_sign, repeats


def test_a_memory_chain_falls_to_chance_for_every_erasure_between_cue_and_answer() -> None:
    found = find_erasing(remembers_the_cue(32), episodes=64)
    (curve,) = found.once  # one layer is all that there is
    assert found.intact.returns == [1.0] * 64
    assert curve.part == ALL and curve.steps.tolist() == [*range(33)]
    assert (curve.returns[:2] == 1.0).all()  # the cue is shown at steps 0 and 1
    chance = np.abs(curve.mean[2:])
    assert chance.max() < 4 / np.sqrt(64)
    assert found.without == pytest.approx(curve.mean[2])


def test_the_curve_of_a_policy_without_memory_is_flat() -> None:
    found = find_erasing(
        made_for("MemoryChain", {"kind": "mlp", "width": 8}, length=32), episodes=16
    )
    (curve,) = found.once
    assert (curve.returns == found.intact.returns).all() and len(curve.steps) == 33
    assert found.every is None and found.without == found.intact.mean


def test_a_t_maze_is_a_coin_without_its_sign() -> None:
    found = find_erasing(remembers_the_sign(6), episodes=200)
    (curve,) = found.once
    assert curve.mean[0] == 1.0
    assert np.abs(curve.mean[1:] - 0.5).max() < 4 * 0.5 / np.sqrt(200)


def test_a_memory_of_one_step_loses_one_answer_at_each_erasure() -> None:
    found = find_erasing(repeats(1), episodes=40, points=4)
    (curve,), answers = found.once, 50  # of 52 cards, each worth 1 / 50
    assert curve.mean[0] == pytest.approx(1.0)  # nothing is asked at step 0
    lost = found.intact.mean - curve.returns[1:]
    assert set(np.round(lost * answers, 6).ravel()) == {0.0, 2.0}  # by chance right, or wrong
    assert found.every is not None
    assert found.every.steps.tolist() == [1, 2, 4, 8, 16, 32]
    # by chance three of four answers are wrong, at one of so many steps
    expected = [1 - 2 * 0.75 * (51 // period) / answers for period in found.every.steps]
    assert found.every.mean == pytest.approx(expected, abs=0.1)


def test_intervals_hold_the_mean() -> None:
    curve = find_erasing(remembers_the_cue(4), episodes=30).once[0]
    ends = curve.interval
    assert (ends[:, 0] <= curve.mean + 1e-9).all() and (curve.mean <= ends[:, 1] + 1e-9).all()
    assert ends[0] == pytest.approx([1.0, 1.0]) and ends[3, 0] < ends[3, 1]


def test_a_part_is_erased_and_nothing_else() -> None:
    memory = {"pattern": "ms", "width": 16, "num_heads": 2}
    policy = made_for("MemoryChain", memory, {"critic": "separate", "previous_action": True})
    parts = parts_of(policy)
    heads = [f"head {block}.{head}" for block in (0, 1) for head in (0, 1)]
    assert [*parts] == [ALL, "block 0", "block 1", *heads]
    full = policy.initial_state(3).apply(torch.ones_like)
    for name, part in parts.items():
        found = part.erase(full, [0, 2])
        for key, old in full.items(True, True):
            new: Any = found.get(key)
            assert (new[1] == 1).all() and (old == 1).all(), "a row, or the caller's own"
            group, block, which = key if len(key) == 3 else (*key, "", "")[:3]
            is_block = name in (ALL, f"block {block.removeprefix('block_')}")
            erased = torch.zeros_like(new, dtype=torch.bool)
            if group == "memory" and is_block:
                erased[[0, 2]] = True
            is_head = name.startswith(f"head {block.removeprefix('block_')}.")
            if group == "memory" and is_head and which != "conv":
                erased[[0, 2], int(name[-1])] = True
            assert torch.equal(new == 0, erased), (name, key)


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_the_state_is_edited_before_every_step(vectorization: str) -> None:
    policy = remembers_the_cue(5)
    seen: list[int] = []

    def edit(state: Any, steps: Any) -> Any:
        assert state.batch_size == (len(steps),)
        seen.append(int(steps[0]))
        assert (state["memory", "c"][steps == 0] == 0).all()
        return state.apply(torch.zeros_like) if steps[0] == 3 else state

    env = EnvConfig("xlstm_rl/MemoryChain-v0", kwargs={"length": 5}, vectorization=vectorization)
    result = evaluate(policy, env, episodes=64, edit_state=edit)
    assert seen[:6] == [0, 1, 2, 3, 4, 5]
    assert evaluate(policy, env, episodes=64).mean == 1.0 and result.mean < 0.7


def test_progress_counts_up_to_all_evaluations() -> None:
    told: list[tuple[int, int]] = []
    find_erasing(remembers_the_cue(4), episodes=2, progress=lambda *at: told.append(at))
    assert [done for done, _ in told] == [*range(1, told[0][1])]
