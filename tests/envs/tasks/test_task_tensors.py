"""The tasks from tensors to tensors: the same numbers, and no look at them on the way."""

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded

from xlstm_rl.envs import EnvConfig, make_vector_env

SMALL = {  # short episodes; a task that is not here has its defaults
    "MemoryChain-v0": {"length": 4, "bits": 2},
    "TMaze-v0": {"length": 3},
    "RepeatPrevious-v0": {"k": 3},
    "AssociativeRecall-v0": {"pairs": 3},
    "Parity-v0": {"length": 5},
    "NavigateAndReturn-v0": {"size": 2, "returns": 1},
}
LIMITS = [None, 3]


def make(name, tensors=True, device="cpu", **fields):
    kwargs = {**SMALL.get(name, {}), "tensors": tensors, "device": device}
    return make_vector_env(EnvConfig(f"xlstm_rl/{name}", 6, "native", kwargs=kwargs, **fields))


@pytest.mark.parametrize(
    "look",
    [
        lambda x: bool(x.any()),
        lambda x: x.any().item(),
        lambda x: x.nonzero(),
        lambda x: x[x],
        lambda x: x.long()[x],
        lambda x: x.clone().index_put_((x,), x[:2]),
        lambda x: x.numpy(),
        lambda x: x.tolist(),
        lambda x: np.asarray(x),
        lambda x: torch.from_numpy(np.zeros(2)),
        lambda x: [1, 2, 3][x.long().sum()],
        lambda x: x.to("meta"),
        lambda x: torch.equal(x, x),
        lambda x: x.long().index_put_((torch.tensor([0]),), torch.tensor(1)),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_the_watch_notices_a_look(looking_is_an_error, look, inference):
    flags = torch.tensor([True, False, True])
    with (
        torch.inference_mode(inference),
        looking_is_an_error(),
        pytest.raises(AssertionError, match=r"device|moves|host"),
    ):
        look(flags)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_a_step_looks_at_nothing(looking_is_an_error, name, mode, limit):
    env = make(name, autoreset=mode, max_episode_steps=limit)
    env.reset(seed=0)
    ended = torch.zeros(6, dtype=torch.int64)
    for action in torch.randint(2, (60, 6)):
        with looking_is_an_error():
            _, _, terminated, truncated, _ = env.step(action)
        ended += terminated | truncated
    assert (ended >= 1).all()


@pytest.mark.gpu
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_on_a_gpu_a_step_waits_for_nothing(waiting_is_an_error, name, mode, limit):
    env = make(name, device="cuda", autoreset=mode, max_episode_steps=limit)
    env.reset(seed=0)
    actions = torch.randint(2, (60, 6), device="cuda")
    env.step(actions[0])
    with waiting_is_an_error():
        for action in actions[1:]:
            env.step(action)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
def test_tensors_draw_what_arrays_draw_where_episodes_are_out_of_step(name, mode, limit):
    envs = [make(name, tensors, autoreset=mode, max_episode_steps=limit) for tensors in (0, 1)]
    arrays, tensors = envs
    for env in envs:
        env.reset(seed=1)
    rng = np.random.default_rng(0)
    for step in range(40):
        actions = rng.integers(2, size=6)
        ours, expected = tensors.step(torch.from_numpy(actions)), arrays.step(actions)
        for one, other in zip(ours[:4], expected[:4], strict=True):
            np.testing.assert_allclose(one.numpy(), other, atol=1e-6)
        if "final_obs" in expected[4]:
            rows = expected[4]["_final_obs"]
            np.testing.assert_array_equal(ours[4]["_final_obs"].numpy(), rows)
            last = np.stack(expected[4]["final_obs"][rows])
            np.testing.assert_array_equal(ours[4]["final_obs"].numpy()[rows], last)
        again = expected[2] | expected[3] if mode == "disabled" else np.zeros(6, dtype=bool)
        if step in (1, 6):  # some begin anew in the middle
            again = again | (np.arange(6) % 3 == step % 3)
        if again.any():
            first, _ = arrays.reset(options={"reset_mask": again})
            own, _ = tensors.reset(options={"reset_mask": torch.from_numpy(again)})
            np.testing.assert_array_equal(own.numpy(), first)


def test_without_autoreset_a_finished_episode_is_not_stepped_on_tensors():
    env = make("TMaze-v0", autoreset="disabled")
    env.reset(seed=0)
    for _ in range(3):
        env.step(torch.zeros(6, dtype=torch.int64))
    env.step(torch.tensor([1, 0, 1, 0, 0, 0]))
    with pytest.raises(ResetNeeded, match=r"environments \[.*\] are over"):
        env.step(torch.zeros(6, dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "limit", "expected"),
    [
        ("MemoryChain-v0", None, False),
        ("MemoryChain-v0", 4, True),
        ("MemoryChain-v0", 5, False),  # its episodes have 5 steps: the limit cuts none
        ("TMaze-v0", None, False),
        ("TMaze-v0", 100, True),
    ],
)
def test_an_environment_says_whether_it_may_cut_an_episode(name, limit, expected):
    assert make(name, max_episode_steps=limit).may_truncate is expected
