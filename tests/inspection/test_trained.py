"""What trained policies remember is what their tasks ask for."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from xlstm_rl.agents import TrainConfig, make_agent
from xlstm_rl.config import find_config, parse_config
from xlstm_rl.inspection import Recording, find_erasing, find_saliency, record
from xlstm_rl.policy import Policy

pytestmark = pytest.mark.slow

POINTS = 8  # what `xlstm-rl inspect` takes by itself


@cache
def trained(name: str, *words: str) -> Policy:
    """The policy that a configuration trains."""
    given = ("--logger.kind", "none", "--threads", "1", *words)
    agent = make_agent(parse_config(TrainConfig, given, find_config(name)))
    agent.learn()
    agent.close()
    return agent.policy


@cache
def played(name: str) -> list[Recording]:
    found, _ = record(trained(name), episodes=20, frames=False)
    assert np.mean([sum(one.rewards) for one in found]) > 0.95, "it has not learnt its task"
    return found


def test_the_cue_is_the_most_salient_step_of_a_memory_chain() -> None:
    policy = trained("memory_chain")
    for episode in played("memory_chain"):
        answer = episode.length - 1
        found = find_saliency(policy, episode.read_by(policy), [answer], POINTS)
        assert found.row(answer).argmax() in (0, 1)


@pytest.mark.parametrize("points", [0, POINTS])
def test_the_sign_is_the_most_salient_step_of_a_t_maze(points: int) -> None:
    policy = trained("tmaze")
    for episode in played("tmaze"):
        turn = episode.length - 1
        found = find_saliency(policy, episode.read_by(policy), [turn], points)
        assert found.most_salient(turn) == 0


@pytest.mark.parametrize(("points", "least"), [(0, 0.5), (POINTS, 0.99)])
def test_the_card_asked_for_is_the_most_salient_of_repeat_previous(
    points: int, least: float
) -> None:
    policy, k = trained("repeat_previous"), 3
    for episode in played("repeat_previous")[:4]:
        found = find_saliency(policy, episode.read_by(policy), points=points)
        answers = [*range(k, episode.length)]
        hits = np.mean([found.most_salient(step) == step - k for step in answers])
        assert hits >= least
        by_lag = [np.mean([found.row(t)[t - lag] for t in answers[5:]]) for lag in range(1, 8)]
        assert np.argmax(by_lag) == k - 1


def test_a_memory_chain_falls_to_chance_for_every_erasure_between_cue_and_answer() -> None:
    found = find_erasing(trained("memory_chain"), episodes=128)
    curves = {one.part: one for one in found.once}
    whole: Any = curves.pop("whole memory")
    assert found.intact.mean == 1.0 and (whole.mean[:1] == 1.0).all()
    assert np.abs(whole.mean[2:]).max() < 4 / np.sqrt(128)
    assert len(curves) == 4 and found.without < 0.4


def test_the_curve_of_a_trained_mlp_is_flat() -> None:
    policy = trained("memory_chain", "--memory.kind", "mlp", "--total-steps", "20000")
    found = find_erasing(policy, episodes=64)
    assert (found.once[0].returns == found.intact.returns).all()
