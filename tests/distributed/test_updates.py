"""What several processes learn from their parts of a batch, held to one process with all of it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.collection.rollout import Rollout
from xlstm_rl.memory import StateTensors
from xlstm_rl.seeding import spawn_seed

AUTORESET = ("same_step", "next_step")
STEPS = 16
ALL = 16
AGENTS: dict[str, tuple[type[RecurrentAgent], dict[str, Any]]] = {
    "ppo": (RecurrentPPO, {"minibatches": 2, "epochs": 2, "segment_steps": 8, "value_clip": 0.1}),
    "ppo, stopped by the divergence": (
        RecurrentPPO,
        {"minibatches": 2, "epochs": 10, "target_kl": 1e-3, "learning_rate": 1e-2},
    ),
    "a2c": (RecurrentA2C, {"normalize_advantage": True, "step_baseline": True}),
    "vtrace": (RecurrentA2C, {"advantages": "vtrace", "epochs": 2}),
}


def make(name: str, num_envs: int, autoreset: str) -> RecurrentAgent:
    cls, agent = AGENTS[name]
    return cls(
        "CartPole-v1",
        seed=3,
        env={"num_envs": num_envs, "autoreset": autoreset, "max_episode_steps": 9}
        | {"vectorization": "sync"},
        memory={"pattern": "ms", "num_blocks": 2, "width": 16, "num_heads": 2},
        policy={"head_width": 16, "previous_reward": True},
        normalization={"observation": True, "reward": True},
        agent={"rollout_steps": STEPS, **agent},
        logger={"kind": "none"},
        total_steps=100_000,
    )


def part(rollout: Rollout, rank: int, size: int) -> Rollout:
    """The rows of a rollout that a rank would have collected."""
    count = rollout.data.batch_size[0] // size
    rows = slice(rank * count, (rank + 1) * count)

    def cut(state: StateTensors) -> StateTensors:
        return tuple(one[rows] for one in state)

    ends = rollout.episode_ends
    mine = [i for i, (_, env) in enumerate(ends) if rows.start <= env < rows.stop]
    return Rollout(
        rollout.data[rows].clone(),
        [cut(state) for state in rollout.segment_states],
        rollout.raw_observation[rows],
        [rollout.episode_returns[i] for i in mine],
        [rollout.episode_lengths[i] for i in mine],
        episode_ends=[(ends[i][0], ends[i][1] - rows.start) for i in mine],
    )


def learn_from(cases: Path) -> dict[Any, dict[str, Any]]:
    """Update in one of the ranks on its part of each rollout."""
    found = {}
    for case, rollouts in torch.load(cases, weights_only=False).items():
        agent = make(case[0], ALL // dist.get_world_size(), case[1])
        assert (agent.ranks.index, agent.ranks.size) == (dist.get_rank(), 2)
        agent._begin_together()
        metrics = []
        for rollout in rollouts:
            own = part(rollout, dist.get_rank(), 2)
            agent.ranks.share_episodes(own)
            agent._prepare(own)
            metrics.append(agent.update(own, 0.25))
        found[case] = {
            "weights": agent.policy.state_dict(),
            "returns": agent.reward_normalizer.moments.state_dict(),
            "metrics": metrics,
            "episodes": (own.episode_returns, own.episode_lengths, own.episode_ends),
        }
    return found


def orders_of_ranks(options: dict[str, Any], updates: int) -> list[torch.Tensor]:
    """What one process has to draw, to fill its minibatches with those of two ranks."""
    segments, minibatches = STEPS // options.get("segment_steps", STEPS), options["minibatches"]
    rows = ALL // 2
    generators = [
        torch.Generator().manual_seed(spawn_seed(3, "shuffling", rank)) for rank in range(2)
    ]
    found = []
    for _ in range(updates * options["epochs"]):
        parts = []
        for rank, generator in enumerate(generators):
            index = torch.randperm(rows * segments, generator=generator)
            # the sequences stand segment by segment, the environments inside
            mine = (index // rows) * ALL + rank * rows + index % rows
            parts.append(mine.view(minibatches, -1))
        found.append(torch.cat(parts, 1).flatten())
    return found


@pytest.fixture(scope="module")
def learned(
    in_ranks: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[Any, tuple[RecurrentAgent, list[dict[str, float]], list[Rollout], list[Any]]]:
    """For each case one process's agent, metrics and rollouts, and the ranks' answers."""
    cases, alone = {}, {}
    for case in itertools.product(AGENTS, AUTORESET):
        agent = make(case[0], ALL, case[1])
        options = AGENTS[case[0]][1]
        collector = agent._make_collector()
        # ranks draw no order for an epoch that they leave out: then one rollout is all
        rollouts = [collector.collect() for _ in range(1 if "target_kl" in options else 2)]
        cases[case] = copy.deepcopy(rollouts)
        metrics = []
        with pytest.MonkeyPatch.context() as patch:
            if "minibatches" in options:
                orders = iter(orders_of_ranks(options, len(rollouts)))
                patch.setattr(torch, "randperm", lambda _, generator, own=orders: next(own))
            for rollout in rollouts:
                agent._prepare(rollout)
                metrics.append(agent.update(rollout, 0.25))
        alone[case] = (agent, metrics, rollouts)
    path = tmp_path_factory.mktemp("updates") / "cases"
    torch.save(cases, path)
    answers = in_ranks(partial(learn_from, path))
    return {case: (*alone[case], [one[case] for one in answers]) for case in cases}


@pytest.mark.parametrize("autoreset", AUTORESET)
@pytest.mark.parametrize("name", AGENTS)
def test_two_ranks_make_the_update_of_one_process_with_all_environments(
    name: str, autoreset: str, learned: dict[Any, Any]
) -> None:
    agent, metrics, rollouts, answers = learned[name, autoreset]
    assert bool(rollouts[0].data["valid"].all()) == (autoreset == "same_step")
    if "target_kl" in AGENTS[name][1]:
        assert metrics[0]["loss/minibatches"] < 20
    for answer in answers:
        for key, value in agent.policy.state_dict().items():
            torch.testing.assert_close(answer["weights"][key], value, atol=1e-5, rtol=1e-5)
        for key, value in agent.reward_normalizer.moments.state_dict().items():
            torch.testing.assert_close(answer["returns"][key], value)
        for one, other in zip(answer["metrics"], metrics, strict=True):
            assert one == pytest.approx(other, abs=1e-5, rel=1e-4)
        last = rollouts[-1]
        own = zip(last.episode_returns, last.episode_lengths, last.episode_ends, strict=True)
        assert sorted(zip(*answer["episodes"], strict=True)) == sorted(own)
    first, second = answers
    assert all(torch.equal(one, second["weights"][key]) for key, one in first["weights"].items())


def messages_of_an_update() -> list[str]:
    """The collective calls of one update, in their order."""
    agent = make("ppo", 4, "next_step")
    agent._begin_together()
    collector = agent._make_collector()
    rollout = collector.collect()
    agent._prepare(rollout)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("all_reduce", "all_gather", "all_gather_object", "broadcast"):
            call = getattr(dist, name)

            def counted(*args: Any, own: Any = call, name: str = name, **kwargs: Any) -> Any:
                found.append(name)
                return own(*args, **kwargs)

            patch.setattr(dist, name, counted)
        agent.update(rollout, 0.0)
    return found


@pytest.mark.slow
def test_an_update_sends_its_gradients_and_a_message_an_epoch(
    in_ranks: Callable[..., list[Any]],
) -> None:
    # the moments of each step's advantages, and of all of them; then 2 epochs of 2 minibatches: the
    # moments of an epoch's advantages; for each minibatch the number of its valid steps and its
    # gradient; at last the explained variance
    epoch = ["all_gather", *["all_reduce", "all_reduce"] * 2]
    for found in in_ranks(messages_of_an_update):
        assert found == ["all_gather", "all_gather", *epoch * 2, "all_gather"]
