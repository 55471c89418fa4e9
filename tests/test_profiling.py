import time
from typing import Any

import pytest
import torch

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.floors import count_operations, product_floors
from xlstm_rl.profiling import NO_PROFILE, PARTS, Profile

AGENTS = {"ppo": RecurrentPPO, "a2c": RecurrentA2C}


def _agent(kind: Any, **sections: Any) -> Any:
    return kind(
        "xlstm_rl/CartPoleNoVel-v1",
        env={"num_envs": 4},
        memory=sections.pop("memory", {"pattern": "ms", "width": 16, "num_heads": 2}),
        agent={"rollout_steps": 8},
        logger={"kind": "none"},
        **sections,
    )


def test_parts_sum_up_and_the_rest_is_other() -> None:
    profile = Profile()
    for seconds in (0.02, 0.03):
        with profile.part("acting"):
            time.sleep(seconds)
    row = profile.rollout(10, elapsed=0.2)
    assert 0.05 <= row["profile/acting"] < 0.15
    assert row["profile/other"] == pytest.approx(0.2 - row["profile/acting"])
    assert profile.rollout(10, elapsed=0.1)["profile/acting"] == 0  # since the last call
    assert profile.seconds()["acting"] == pytest.approx(row["profile/acting"])


def test_an_unknown_part_is_an_error() -> None:
    with pytest.raises(KeyError):
        Profile().part("magic")


@pytest.mark.parametrize("algo", AGENTS)
@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_every_part_of_a_run_is_measured(algo: str, critic: str) -> None:
    agent, profile = _agent(AGENTS[algo], policy={"critic": critic}), Profile()
    rows: list[dict[str, float]] = []
    began = time.perf_counter()
    agent.learn(96, on_update=lambda _, metrics: rows.append(metrics), profile=profile)
    elapsed = time.perf_counter() - began
    found = profile.seconds()
    assert set(found) == {*PARTS, "other"}
    assert all(found[name] > 0 for name in PARTS)
    assert sum(found.values()) <= elapsed
    assert len(rows) == 3 and all(f"profile/{name}" in rows[0] for name in (*PARTS, "other"))


def test_a_profile_changes_no_number_and_ends_with_its_call() -> None:
    plain, measured = _agent(RecurrentPPO), _agent(RecurrentPPO)
    plain.learn(64)
    measured.learn(64, profile=Profile())
    metrics: dict[str, float] = {}
    measured.learn(32, on_update=lambda _, found: metrics.update(found))
    plain.learn(32)
    assert not any(name.startswith("profile/") for name in metrics)
    pairs = zip(plain.parameters, measured.parameters, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert NO_PROFILE.rollout(1, 1.0) == {}


def test_operations_are_those_of_the_products() -> None:
    # a memory without one: encoder, an MLP, heads; every operation is one of a linear layer
    agent = _agent(RecurrentPPO, memory={"kind": "mlp", "width": 16}, policy={"critic": "shared"})
    counted = count_operations(agent)
    network = agent.policy.network
    linear = [x for x in network.modules() if isinstance(x, torch.nn.Linear)]
    forward = 2.0 * 4 * 8 * sum(x.weight.numel() for x in linear)
    value = (
        2.0
        * 4
        * 8
        * sum(
            x.weight.numel() for x in network.value_head.modules() if isinstance(x, torch.nn.Linear)
        )
    )
    epochs = agent.algorithm.epochs
    assert counted["forward"] == pytest.approx(epochs * forward)
    assert counted["acting"] == pytest.approx(forward - value)
    first = linear[0].weight.numel()  # whose input needs no gradient
    assert counted["backward"] == pytest.approx(epochs * (2 * forward - 2.0 * 4 * 8 * first))
    assert all(seconds > 0 for seconds in product_floors(agent).values())
