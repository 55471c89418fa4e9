"""What may change when a run goes on, and what is written down of it."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.config import ConfigError, load_yaml


class Named(gymnasium.Env[Any, Any]):
    """An environment that a callable makes."""

    observation_space = gymnasium.spaces.Box(-9, 9, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), 1.0, self.np_random.random() < 0.2, False, {}


def test_rows_after_the_checkpoint_are_dropped_and_not_doubled(
    going_on: Any, tmp_path: Path
) -> None:
    agent = going_on.make(tmp_path / "run")
    with agent:
        agent.learn(3 * going_on.rollout)
        table = tmp_path / "run" / "metrics.csv"
        # a killed run: rows that no checkpoint covers, and a part of one
        lines = table.read_text().splitlines(keepends=True)
        last = lines[-1].split(",", 1)[1]
    table.write_text("".join([*lines, f"64,{last}", f"80,{last}", "96,1.5"]))
    with RecurrentPPO.load(tmp_path / "run") as loaded:
        loaded.learn(2 * going_on.rollout)
    assert [row["step"] for row in going_on.rows(tmp_path / "run")] == [
        "16",
        "32",
        "48",
        "64",
        "80",
    ]


def test_the_configuration_says_what_was_trained(going_on: Any, tmp_path: Path) -> None:
    def recorded(run: Path) -> tuple[int, int | None, str]:
        found = load_yaml(run / "config.yaml")
        return found["total_steps"], found["horizon"], found["env"]["id"]

    agent = RecurrentPPO(
        Named,
        run_dir=str(tmp_path / "run"),
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
    )
    with agent:
        agent.learn(2 * going_on.rollout)
        name = f"custom({__name__}.Named)"
        assert recorded(tmp_path / "run") == (32, 100_000, name)
        agent.learn(3 * going_on.rollout)
        assert recorded(tmp_path / "run") == (80, 100_000, name)
    with pytest.raises(ConfigError, match=r"trained on custom\(.*Named\).*load\(run, environment"):
        RecurrentPPO.load(tmp_path / "run")


def test_other_options_take_effect_and_the_ones_before_are_kept(
    going_on: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    going_on.interrupt_at(going_on.make(run), 4)
    options: dict[str, Any] = {"agent": {"learning_rate": 0.5, "learning_rate_end": 1.0}}
    with RecurrentPPO.load(run, **options) as agent:
        assert agent.optimizer.state_dict()["state"]
        agent.learn()
    assert {row["schedule/learning_rate"] for row in going_on.rows(run)[4:]} == {"0.5"}
    assert load_yaml(run / "config.yaml")["agent"]["learning_rate"] == 0.5
    assert load_yaml(run / "config.before-64.yaml")["agent"]["learning_rate"] == 1e-3
    with RecurrentPPO.load(run) as again:
        assert again.config.agent.learning_rate == 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory": {"width": 16}}, r"memory\.width=16: .* trained with 8"),
        (
            {"memory": {"kind": "gru"}},
            r"memory\.kind='gru': .* trained with 'xlstm', which cannot change; train a new run",
        ),
        (
            {"memory": "gru"},
            r"memory\.kind='gru': .* trained with 'xlstm', which cannot change; train a new run",
        ),
        ({"policy": {"previous_action": False}}, r"policy\.previous_action=False"),
        ({"normalization": {"reward": False}}, r"normalization\.reward=False"),
        ({"seed": 9}, r"seed=9: the random streams of a run go on from its own seed, 5"),
        ({"agent": {"learning_rat": 1.0}}, "did you mean"),
    ],
)
def test_what_a_trained_policy_is_made_of_cannot_change(
    going_on: Any, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    going_on.interrupt_at(going_on.make(tmp_path / "run"), 2)
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=said) as refused:
        RecurrentPPO.load(tmp_path / "run", **options)
    assert "\n" not in str(refused.value)
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


def test_other_spaces_and_another_algorithm_are_refused(going_on: Any, tmp_path: Path) -> None:
    going_on.interrupt_at(going_on.make(tmp_path / "run"), 2)
    with pytest.raises(ConfigError, match="observation_space is not the one of the run"):
        RecurrentPPO.load(tmp_path / "run", "CartPole-v1")
    with pytest.raises(ConfigError, match="runs a2c"):
        RecurrentA2C.load(tmp_path / "run")


def test_another_number_of_environments_begins_new_episodes(
    going_on: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    going_on.interrupt_at(going_on.make(tmp_path / "run"), 2)
    capsys.readouterr()
    with RecurrentPPO.load(tmp_path / "run", env={"num_envs": 4}) as agent:
        agent.learn(64)
    said = capsys.readouterr().err
    assert "new episodes begin: the run had 2 environments, now there are 4\n" in said
    assert said.count("\n") == 1
    assert agent.steps_done == 2 * going_on.rollout + 64


def test_a_finished_run_says_so_and_trains_on_when_asked(going_on: Any, tmp_path: Path) -> None:
    with going_on.make(tmp_path / "run") as agent:
        agent.learn()
    with RecurrentPPO.load(tmp_path / "run") as loaded:
        with pytest.raises(ConfigError, match=r"finished: 128 steps of 128 are done"):
            loaded.learn()
        assert loaded.learn(going_on.rollout).steps_done == 144
    assert load_yaml(tmp_path / "run" / "config.yaml")["total_steps"] == 144


def test_a_larger_budget_counts_what_the_last_one_left_over_once(
    going_on: Any, tmp_path: Path
) -> None:
    run, rollout = tmp_path / "run", going_on.rollout
    with going_on.make(run) as agent:
        agent.learn(2 * rollout + rollout - 1)
        agent.save(run)
    with RecurrentPPO.load(run, total_steps=3 * rollout + 1) as loaded:
        assert loaded.learn().steps_done == 3 * rollout
    assert load_yaml(run / "config.yaml")["total_steps"] == 3 * rollout + 1


def test_a_copy_goes_on_in_a_folder_of_its_own(going_on: Any, tmp_path: Path) -> None:
    with going_on.make(tmp_path / "run") as agent:
        agent.learn(4 * going_on.rollout)
        agent.save(tmp_path / "run")
        agent.learn(2 * going_on.rollout)
    early = tmp_path / "run" / "checkpoints" / "64"
    with pytest.raises(ConfigError, match="newer checkpoint, 96"):
        RecurrentPPO.load(early)
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    with RecurrentPPO.load(early, run_dir=str(tmp_path / "copy")) as loaded:
        loaded.learn(2 * going_on.rollout)
        going_on.assert_same(
            going_on.state_of(loaded)["weights"], going_on.state_of(agent)["weights"]
        )
    assert going_on.rows(tmp_path / "copy") == going_on.rows(tmp_path / "run")[4:]
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before


def test_the_trainers_state_holds_nothing_but_tensors_and_plain_values(
    going_on: Any, tmp_path: Path
) -> None:
    going_on.interrupt_at(going_on.make(tmp_path / "run"), 2)
    path = tmp_path / "run" / "checkpoints" / "32" / "trainer.pt"
    state = torch.load(path, weights_only=True)
    json.loads(state["collector"]["environments"]["structure"])
    assert state["collector"]["environments"]["arrays"].dtype == torch.uint8


def test_a_dict_with_its_keys_in_another_order_is_said_to_be_one(tmp_path: Path) -> None:
    class Keyed(Named):
        def __init__(self, *names: str) -> None:
            parts = {"a": gymnasium.spaces.Box(-1, 1, (2,)), "b": gymnasium.spaces.Discrete(3)}
            self.observation_space = gymnasium.spaces.Dict({})
            self.observation_space.spaces = {name: parts[name] for name in names}  # unsorted

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return self.observation_space.sample(), {}

        def step(self, action: Any) -> Any:
            return self.observation_space.sample(), 1.0, True, False, {}

    run, small = tmp_path / "run", {"width": 8, "num_heads": 2}
    options: dict[str, Any] = {"env": {"num_envs": 2, "vectorization": "sync"}, "memory": small}
    with RecurrentA2C(lambda: Keyed("a", "b"), run_dir=str(run), **options) as agent:
        agent.learn(64)
    with pytest.raises(ConfigError, match=r"another order \(b, a\): give them in the run's, a, b$"):
        RecurrentA2C.load(run, lambda: Keyed("b", "a"))
