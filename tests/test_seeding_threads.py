"""Threads of one process: none draws from what another has begun at a seed."""

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.agents import setup
from xlstm_rl.policy import Policy
from xlstm_rl.runs import checkpoint
from xlstm_rl.seeding import global_streams, load_streams, streams_state, torch_stream_restored

CPU = torch.device("cpu")


def make(seed: int) -> RecurrentPPO:
    return RecurrentPPO(
        "CartPole-v1",
        seed=seed,
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 1},
        logger={"kind": "none"},
    )


def first_weights(agent: RecurrentPPO) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in agent.parameters])


class Meeting:
    """Holds the first thread up, in the middle of what it does, until another one is there too.

    That one stays long enough for the first to go on.
    """

    def __init__(self) -> None:
        self._lock, self._second = threading.Lock(), threading.Event()
        self._count = 0

    def __call__(self) -> None:
        with self._lock:
            self._count += 1
            is_first = self._count == 1
        if is_first:  # with a lock, nobody comes
            self._second.wait(0.5)
        else:
            self._second.set()
            time.sleep(0.2)


def meeting(call: Callable[..., Any]) -> Callable[..., Any]:
    meet = Meeting()

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        meet()
        return call(*args, **kwargs)

    return wrapped


def in_threads(*calls: Callable[[], Any]) -> None:
    errors: list[BaseException] = []

    def run(call: Callable[[], Any]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_agents_made_in_threads_have_the_weights_of_their_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = [first_weights(make(seed)) for seed in (1, 2)]
    stream = torch.random.get_rng_state()
    monkeypatch.setattr(setup, "Policy", meeting(setup.Policy))
    made: dict[int, RecurrentPPO] = {}
    in_threads(*(lambda seed=seed: made.update({seed: make(seed)}) for seed in (1, 2)))
    found = [first_weights(made[seed]) for seed in (1, 2)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert torch.equal(torch.random.get_rng_state(), stream)


def test_a_policy_that_is_loaded_leaves_the_weights_of_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make(1)
    agent.save(tmp_path / "run")
    meet, inner = Meeting(), setup.Policy

    def meet_and_make(*args: Any) -> Policy:
        meet()
        return inner(*args)

    def make_and_meet(*args: Any) -> Policy:
        policy = inner(*args)
        if policy.device.type == "cpu":  # not where shapes alone are made
            meet()
        return policy

    monkeypatch.setattr(setup, "Policy", meet_and_make)
    monkeypatch.setattr(checkpoint, "Policy", make_and_meet)
    made: list[RecurrentPPO] = []
    in_threads(lambda: made.append(make(1)), lambda: load_policy(tmp_path / "run"))
    assert torch.equal(first_weights(made[0]), first_weights(agent))


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_global_streams_of_threads_follow_from_their_own_seeds() -> None:
    expected = {}
    for seed in (1, 2):
        with global_streams(seed, CPU):
            expected[seed] = drawn()
    meet, found = Meeting(), {}

    def draw(seed: int) -> None:
        with global_streams(seed, CPU):
            meet()
            found[seed] = drawn()

    with global_streams(3, CPU):
        before = streams_state()["python"]
    in_threads(*(lambda seed=seed: draw(seed) for seed in (1, 2)))
    assert found == expected
    with global_streams(3, CPU):
        assert streams_state()["python"] == before


def test_what_another_thread_saves_and_loads_is_not_in_between() -> None:
    outside, meet = streams_state(), Meeting()
    saved = []

    def inside() -> None:
        with global_streams(1, CPU):
            expected = drawn()
        with global_streams(1, CPU):
            meet()
            assert drawn() == expected

    def other() -> None:
        saved.append(streams_state())
        load_streams(outside)
        meet()

    in_threads(inside, other)
    assert saved[0]["python"] == outside["python"]


def test_a_thread_that_holds_the_streams_may_begin_them_again() -> None:
    with global_streams(1, CPU), torch_stream_restored(), global_streams(2, CPU):
        inner = drawn()
    with global_streams(2, CPU):
        assert drawn() == inner


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_a_thread_of_its_parent() -> None:
    is_held, is_done = threading.Event(), threading.Event()

    def hold() -> None:
        with torch_stream_restored():
            is_held.set()
            is_done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait(10)
    child = os.fork()
    if not child:
        with torch_stream_restored():
            os._exit(0)
    watch = threading.Timer(5, os.kill, (child, 9))
    watch.start()
    try:
        assert os.waitpid(child, 0)[1] == 0
    finally:
        watch.cancel()
        is_done.set()
        thread.join()
