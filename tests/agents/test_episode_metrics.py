"""Means over recent episodes go on where a run does."""

import math
from types import SimpleNamespace
from typing import Any

import torch

from xlstm_rl.agents.episode_metrics import RecentEpisodes


def rollout(*returns: float, **infos: list[float]) -> Any:
    return SimpleNamespace(
        episode_returns=list(returns),
        episode_lengths=[2] * len(returns),
        episode_successes=infos.get("is_success", []),
        episode_infos=infos,
    )


def test_a_copy_of_the_state_has_the_same_means_and_goes_on_alike(tmp_path: Any) -> None:
    before, after = RecentEpisodes(), RecentEpisodes()
    for n in range(70):
        before.add(rollout(n, 2.0 * n, is_success=[n % 2, 1.0], crashes=[3.0 * n, math.nan]))
    torch.save(before.state(), tmp_path / "state.pt")
    after.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert after.metrics() == before.metrics()
    assert before.metrics()["info/crashes"] == 3.0 * sum(range(70)) / 70
    for each in (before, after):
        for _ in range(40):
            each.add(rollout(5.0, crashes=[1.0]))
    assert after.metrics() == before.metrics()
    assert before.metrics()["info/crashes"] == (40 + 3.0 * sum(range(10, 70))) / 100
