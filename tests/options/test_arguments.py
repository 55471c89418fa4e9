"""Numbers of any type, names nearly right, paths from home: in Python and on the command line."""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentPPO, evaluate, kernels, load_policy
from xlstm_rl.agents import TrainConfig
from xlstm_rl.cli import main
from xlstm_rl.config import ConfigError, config_to_dict, parse_config
from xlstm_rl.envs import MemoryChain, MemoryChainVectorEnv
from xlstm_rl.memory import MemoryConfig, make_memory
from xlstm_rl.options.arguments import did_you_mean, plain_number, whole_number
from xlstm_rl.runs.plotting import plot_runs

THREES = [
    3,
    3.0,
    np.int64(3),
    np.uint8(3),
    np.float32(3),
    np.array(3),
    torch.tensor(3),
    torch.tensor(3.0),
    Fraction(3),
    Decimal(3),
]
NO_INTEGERS = [
    True,
    np.True_,
    torch.tensor(True),
    2.5,
    np.float64(2.5),
    math.nan,
    math.inf,
    "3 of them",
    None,
    [3],
    np.array([3]),
    3j,
]
IDS = [f"{type(one).__name__} {one}" for one in NO_INTEGERS]


@pytest.mark.parametrize("number", THREES, ids=[type(one).__name__ for one in THREES])
def test_whole_numbers_of_any_type_are_integers_of_pythons(number: Any) -> None:
    assert whole_number(number) == 3
    assert type(whole_number(number)) is int


@pytest.mark.parametrize("value", NO_INTEGERS, ids=IDS)
def test_what_is_no_whole_number_is_none(value: Any) -> None:
    assert whole_number(value) is None


def test_large_numbers_keep_every_digit() -> None:
    large = 2**63 - 1
    for number in (large, np.int64(large), torch.tensor(large), np.uint64(large)):
        assert whole_number(number) == plain_number(number) == large


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("lsmt", ["xlstm", "lstm"], "lstm"),
        ("XLSTM", ["xlstm", "lstm"], "xlstm"),
        ("num_envs", ["env.id", "env.num_envs"], "env.num_envs"),
        ("agent.num_envs", ["env.id", "env.num_envs"], "env.num_envs"),
        ("agent.epoch", ["agent.epochs", "env.id"], "agent.epochs"),
        ("quux", ["xlstm", "lstm"], None),
        ("", ["xlstm"], None),
    ],
)
def test_the_closest_name_is_suggested(name: str, known: list[str], meant: str | None) -> None:
    assert did_you_mean(name, known) == ("" if meant is None else f"; did you mean {meant}?")


SMALL: dict[str, Any] = {
    "memory": {"kind": "gru", "width": 8},
    "agent": {"rollout_steps": 8, "epochs": 1, "minibatches": 1},
    "logger": {"kind": "none"},
}
COUNTED: dict[str, Callable[[Any, Path], Any]] = {
    "learn": lambda n, run: _agent().learn(n),
    "learn, horizon": lambda n, run: _agent().learn(16, horizon=n),
    "seed": lambda n, run: RecurrentPPO("CartPole-v1", seed=n, run_dir=str(run), **SMALL),
    "threads": lambda n, run: RecurrentPPO("CartPole-v1", threads=n, run_dir=str(run), **SMALL),
    "env.num_envs": lambda n, run: RecurrentPPO("CartPole-v1", **{**SMALL, "env": {"num_envs": n}}),
    "env.kwargs": lambda n, run: RecurrentPPO(
        "xlstm_rl/MemoryChain-v0", **{**SMALL, "env": {"kwargs": {"length": n}}}
    ),
    "env.wrappers": lambda n, run: RecurrentPPO(
        "CartPole-v1", **{**SMALL, "env": {"wrappers": {"Delay": {"steps": n}}}}
    ),
    "env.max_episode_steps": lambda n, run: RecurrentPPO(
        "CartPole-v1", **{**SMALL, "env": {"max_episode_steps": n}}
    ),
    "evaluate, episodes": lambda n, run: evaluate(_agent().policy, episodes=n),
    "evaluate, seed": lambda n, run: evaluate(_agent().policy, episodes=1, seed=n),
    "evaluate, max_episode_steps": lambda n, run: evaluate(
        _agent().policy, episodes=1, max_episode_steps=n
    ),
    "policy.actor": lambda n, run: _agent().policy.actor(num_envs=n)(np.zeros((3, 4), np.float32)),
    "policy.initial_state": lambda n, run: _agent().policy.initial_state(n),
    "memory.initial_state": lambda n, run: make_memory(MemoryConfig(kind="gru")).initial_state(n),
    "a task": lambda n, run: MemoryChain(length=n).reset(),
    "a task's vector form": lambda n, run: MemoryChainVectorEnv(n, max_episode_steps=n).reset(),
    "a task's reset": lambda n, run: MemoryChain().reset(seed=n),
    "a vector's reset": lambda n, run: MemoryChainVectorEnv(2).reset(seed=n),
    "gymnasium.make": lambda n, run: gymnasium.make("xlstm_rl/MemoryChain-v0", length=n).reset(),
    "chunk_size": lambda n, run: kernels.mlstm(
        *torch.zeros(3, 1, 4, 1, 2), *torch.zeros(2, 1, 4, 1), chunk_size=n
    ),
}


def _agent() -> RecurrentPPO:
    return RecurrentPPO("CartPole-v1", env={"num_envs": 2}, **SMALL)


@pytest.mark.parametrize(
    "number", [3.0, np.int64(3), torch.tensor(3)], ids=["float", "np", "torch"]
)
@pytest.mark.parametrize("what", COUNTED)
def test_counts_and_seeds_may_be_of_any_type(what: str, number: Any, tmp_path: Path) -> None:
    COUNTED[what](number, tmp_path / "run")


@pytest.mark.parametrize("value", [2.5, True, math.nan, "two"], ids=str)
@pytest.mark.parametrize("what", COUNTED)
def test_what_is_no_count_is_refused_before_a_folder_is_made(
    what: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"expected an integer|expected .* integer >="):
        COUNTED[what](value, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--total-steps", "1e5"], ["--total-steps=100000.0"]])
def test_the_command_line_takes_whole_numbers_as_python_does(words: list[str]) -> None:
    total = parse_config(TrainConfig, words).total_steps
    assert total == 100_000
    assert type(total) is int
    assert parse_config(TrainConfig, [], {"total_steps": 1e5}).total_steps == total
    assert config_to_dict(TrainConfig(seed=np.int64(3)))["seed"] == 3  # type: ignore[arg-type]


def test_a_tilde_means_home_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    (home / "mine.yaml").write_text("env: {id: CartPole-v1, num_envs: 2}\nrun_dir: ~/run\n")
    small = ["--agent.rollout-steps", "8", "--total-steps", "32", "--agent.minibatches", "1"]
    small += ["--memory.kind", "gru", "--memory.width", "8", "--env.max-episode-steps", "6"]
    assert main(["train", "--config=~/mine.yaml", *small]) == 0
    assert main(["eval", "~/run", "--episodes", "1"]) == 0
    assert main(["plot", "~/run", "--out", "~/curve.svg"]) == 0
    agent = _agent()
    agent.save("~/saved")
    load_policy("~/saved")
    agent.save(home / "saved")  # the same folder: it may be written again
    plot_runs([Path("~/run")], Path("~/again.svg"))
    names = {"run", "saved", "mine.yaml", "curve.svg", "again.svg"}
    # matplotlib keeps hidden folders at home
    assert {path.name for path in home.iterdir() if path.name[0] != "."} == names
    assert list(here.iterdir()) == []
    with pytest.raises(ConfigError, match="run: a folder that is not empty"):
        RecurrentPPO("CartPole-v1", run_dir="~/run").open_run()
