"""Numbers of options are finite, but for limits, of which infinity is none."""

import math
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import pytest

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.cli import main
from xlstm_rl.options.fields import bare, members, own_fields
from xlstm_rl.options.kinds import classes_of, is_section
from xlstm_rl.options.section import accepting_unused

LIMITS = {
    *("max_grad_norm", "clip", "value_clip", "target_kl", "rho_bar", "c_bar"),
    *("clip_observation", "clip_reward"),
}


def _numbers(cls: type) -> Iterator[tuple[type, str]]:
    """Every option of a class and of the sections in it that may be a number with a fraction."""
    for name, (_, kind) in own_fields(cls).items():
        if is_section(kind):
            for one in classes_of(kind).values():
                yield from _numbers(one)
        elif any(bare(one) is float for one in members(kind)):
            yield cls, name


NUMBERS = sorted(set(_numbers(TrainConfig)), key=lambda one: (one[0].__name__, one[1]))


def test_the_numbers_are_found() -> None:
    assert {name for _, name in NUMBERS} > {*LIMITS, "value_coef", "gamma", "initial_log_std"}
    assert all(is_dataclass(cls) for cls, _ in NUMBERS)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, "1e400"])
@pytest.mark.parametrize(("cls", "name"), NUMBERS)
def test_no_number_is_infinite_but_a_limit(cls: Any, name: str, value: Any) -> None:
    if name in LIMITS and float(value) == math.inf:
        with accepting_unused():
            assert getattr(cls(**{name: value}), name) == math.inf
    else:
        with pytest.raises(ValueError, match=rf"{name}=(-?inf|nan): expected "):
            cls(**{name: value})


def test_the_command_line_and_the_agents_refuse_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--agent.learning-rate", "1e400"]) == 2
    said = "agent.learning_rate=inf: expected a finite number > 0"
    assert said in capsys.readouterr().err
    with pytest.raises(ValueError, match=said):
        RecurrentPPO("CartPole-v1", agent={"learning_rate": math.inf})


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
def test_without_a_limit_training_goes_on(algorithm: Any) -> None:
    names = {"max_grad_norm", "clip", "value_clip", "target_kl", "rho_bar", "c_bar"}
    options: dict[str, Any] = {"rollout_steps": 8, "advantages": "vtrace"}
    if algorithm is RecurrentPPO:
        names -= {"rho_bar", "c_bar"}
        del options["advantages"]
    else:
        names -= {"clip", "value_clip", "target_kl"}
    agent = algorithm(
        "CartPole-v1",
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent=options | dict.fromkeys(names, math.inf),
        normalization={"clip_observation": math.inf, "clip_reward": math.inf},
        logger={"kind": "none"},
    )
    with agent:
        agent.learn(32)
        assert all(weight.isfinite().all() for weight in agent.policy.parameters())
