from dataclasses import replace

import pytest

from xlstm_rl.agents import TrainConfig, make_agent
from xlstm_rl.comparing.sizes import PolicySizes, matching_width
from xlstm_rl.config import ConfigError
from xlstm_rl.memory import MemoryConfig


def test_the_weights_that_are_counted_are_those_that_an_agent_trains() -> None:
    config = TrainConfig(memory=MemoryConfig("lstm", width=20))
    with make_agent(config) as agent:
        trained = sum(one.numel() for one in agent.parameters)
    assert PolicySizes(config.env).count(config) == trained


@pytest.mark.parametrize("width", [4, 8, 36, 100, 516])
def test_the_width_that_matches_a_width_is_itself(width: int) -> None:
    assert matching_width(lambda one: 4 * one * one + 3 * one, 4 * width**2 + 3 * width) == width


def test_of_two_widths_the_one_with_the_nearer_number_is_taken() -> None:
    assert matching_width(lambda width: width**2, 20**2 + 10) == 20
    assert matching_width(lambda width: width**2, 24**2 - 10) == 24


def test_widths_that_the_memory_cannot_have_are_passed_over() -> None:
    def count(width: int) -> int | None:
        return None if width % 12 else width**2

    assert matching_width(count, 36**2) == 36


def test_a_size_that_no_width_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="no width has about 1,000 weights; the nearest has 5"):
        matching_width(lambda width: 5, 1000)


def test_matched_policies_have_about_as_many_weights() -> None:
    config = TrainConfig(memory=MemoryConfig(width=32))
    sizes = PolicySizes(config.env)
    target = sizes.count(config)
    for kind in ("lstm", "gru", "mlp"):

        def count(width: int, kind: str = kind) -> int:
            return sizes.count(replace(config, memory=MemoryConfig(kind, width=width)))

        assert count(matching_width(count, target)) == pytest.approx(target, rel=0.1)
