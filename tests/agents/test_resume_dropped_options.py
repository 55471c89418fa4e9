"""Options of a run that have no use any more, because others of it change."""

from pathlib import Path
from typing import Any

import pytest

from xlstm_rl import RecurrentPPO
from xlstm_rl.config import ConfigError


def make(run: Path, **sections: Any) -> RecurrentPPO:
    agent = {"rollout_steps": 8, "minibatches": 1, "epochs": 1, **sections.pop("agent", {})}
    return RecurrentPPO(
        "CartPole-v1",
        run_dir=str(run),
        total_steps=64,
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent=agent,
        **sections,
    )


@pytest.mark.usefixtures("wandb_disabled")
@pytest.mark.parametrize(
    ("before", "change"),
    [
        ({"logger": {"kind": "jsonl,wandb", "project": "p"}}, {"logger": {"kind": "csv"}}),
        ({"logger": {"kind": "wandb", "tags": ("a",)}}, {"logger": {"kind": "tensorboard"}}),
        (
            {"evaluation": {"every_steps": 16, "episodes": 2, "deterministic": False}},
            {"evaluation": {"every_steps": 0}},
        ),
        (
            {"agent": {"optimizer": "SGD", "optimizer_kwargs": {"momentum": 0.9}}},
            {"agent": {"optimizer": "adam"}},
        ),
        (
            {"agent": {"learning_rate_schedule": "cosine", "learning_rate_end": 1e-5}},
            {"agent": {"learning_rate_schedule": "constant"}},
        ),
        (
            {"agent": {"clip_schedule": "linear", "clip_end": 0.05}},
            {"agent": {"clip_schedule": "constant"}},
        ),
    ],
)
def test_options_that_a_change_leaves_without_use_are_dropped(
    before: dict[str, Any],
    change: dict[str, Any],
    tmp_path: Path,
) -> None:
    with make(tmp_path / "run", **before) as agent:
        agent.learn(16)
    with RecurrentPPO.load(tmp_path / "run", **change) as loaded:
        loaded.learn(16)
        for section, options in change.items():
            for name, value in options.items():
                assert getattr(getattr(loaded.config, section), name) == value
    with RecurrentPPO.load(tmp_path / "run") as again:  # what was written down is consistent
        for section in change:
            assert getattr(again.config, section) == getattr(loaded.config, section)


def test_options_without_use_that_are_given_are_refused(tmp_path: Path) -> None:
    evaluation = {"every_steps": 16, "episodes": 2}
    with make(tmp_path / "run", evaluation=evaluation) as agent:
        agent.learn(16)
    with pytest.raises(ConfigError, match=r"evaluation\.episodes=3: an option of"):
        RecurrentPPO.load(tmp_path / "run", evaluation={"every_steps": 0, "episodes": 3})
    with pytest.raises(ConfigError, match=r"logger\.project: an option of logger\.kind=wandb"):
        RecurrentPPO.load(tmp_path / "run", logger={"kind": "csv", "project": "p"})
