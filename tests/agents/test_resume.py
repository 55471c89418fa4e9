"""A run that was interrupted and goes on from its checkpoint is the run that was not."""

from pathlib import Path
from typing import Any

import pytest

MEMORIES = ["m", "s", "lstm"]


@pytest.mark.parametrize(
    ("algo", "memory", "vectorization"),
    [
        ("ppo", "m", "native"),
        ("ppo", "s", "sync"),
        ("ppo", "lstm", "native"),
        ("a2c", "m", "sync"),
        ("a2c", "s", "native"),
        ("a2c", "lstm", "sync"),
    ],
)
@pytest.mark.each_value
def test_an_interrupted_run_goes_on_to_the_bit(
    going_on: Any, algo: str, memory: str, vectorization: str, tmp_path: Path
) -> None:
    what = {"algo": algo, "memory": memory, "vectorization": vectorization}
    going_on.assert_to_the_bit(tmp_path, going_on.points(3, what), **what)


@pytest.mark.slow
@pytest.mark.parametrize("point", range(10))
@pytest.mark.parametrize("vectorization", ["sync", "native"])
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_a_run_interrupted_at_any_points_goes_on_to_the_bit(
    going_on: Any, algo: str, memory: str, vectorization: str, point: int, tmp_path: Path
) -> None:
    what = {"algo": algo, "memory": memory, "vectorization": vectorization}
    going_on.assert_to_the_bit(tmp_path, going_on.points(1 + point % 3, (what, point)), **what)


MODES = ["same_step", "next_step", "disabled"]
FORMS: dict[str, dict[str, Any]] = {
    "tensors": {"env": "xlstm_rl/TMaze-v0", "kwargs": {"length": 3, "tensors": True}},
    "wrappers": {"wrappers": {"Delay": {"steps": 2}, "Flicker": {"probability": 0.3}}},
    "restart": {"vectorization": "sync", "on_error": "restart"},
    "processes": {"vectorization": "async"},
    "processes that restart": {"vectorization": "async", "on_error": "restart"},
}
SOME = [("tensors", 2), ("wrappers", 1), ("restart", 0), ("processes", 1)]
SOME += [("processes that restart", 1)]


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("form", "mode"),
    [
        pytest.param(form, mode, marks=() if (form, i) in SOME else pytest.mark.slow)
        for form in FORMS
        for i, mode in enumerate(MODES)
    ],
)
def test_every_form_and_autoreset_mode_goes_on_to_the_bit(
    going_on: Any, form: str, mode: str, tmp_path: Path
) -> None:
    going_on.assert_to_the_bit(tmp_path, going_on.points(2, mode), autoreset=mode, **FORMS[form])


def test_a_separate_critic_that_shares_nothing_and_a_shared_one_go_on(
    going_on: Any, tmp_path: Path
) -> None:
    for critic in ("shared", "separate"):
        going_on.assert_to_the_bit(tmp_path / critic, [3, 4], policy={"critic": critic})
