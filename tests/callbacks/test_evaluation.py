import csv
import json
import random
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv

from xlstm_rl import RecurrentA2C, RecurrentPPO, load_policy
from xlstm_rl.callbacks import PeriodicEvaluation
from xlstm_rl.cli import main
from xlstm_rl.config import ConfigError
from xlstm_rl.errors import CallbackError, CheckpointError
from xlstm_rl.runs.folder import run_of

SMALL: dict[str, Any] = {
    "env": {"num_envs": 2},
    "memory": {"width": 8, "num_heads": 2},
    "agent": {"rollout_steps": 8},
}
ROLLOUT = 16


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Draws(gymnasium.Env[Any, Any]):
    """Draws from its own and from every global stream, and pays by the action."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def _observe(self) -> Any:
        drawn = [self.np_random.normal() + random.random(), np.random.normal()]
        return np.clip(np.array(drawn, np.float32) + float(torch.rand(())), -10, 10)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self._observe(), float(action), self.t == 5, False, {"is_success": True}


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
@pytest.mark.parametrize("deterministic", [True, False])
def test_training_is_the_same_to_the_bit_with_and_without_evaluation(
    algorithm: Any, deterministic: bool, tmp_path: Path
) -> None:
    def train(name: str, **evaluation: Any) -> tuple[Any, ...]:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        agent = algorithm(
            Draws,
            env={"num_envs": 2, "vectorization": "sync"},
            memory={"pattern": "ms", "width": 8, "num_heads": 2},
            agent={"rollout_steps": 8, "log_interval": 1}
            | ({"minibatches": 1} if algorithm is RecurrentPPO else {}),
            normalization={"observation": True, "reward": True},
            run_dir=str(tmp_path / name),
            evaluation=evaluation,
        )
        agent.learn(6 * ROLLOUT)
        agent.close()
        drawn = (random.random(), np.random.random(), float(torch.rand(())))
        kept = [
            {k: v for k, v in row.items() if not k.startswith(("time/", "evaluation/"))}
            for row in rows(tmp_path / name)
        ]
        numbers = torch.cat([one.flatten().double() for one in agent.policy.state_dict().values()])
        generators = (agent.sample_generator.get_state(), agent.shuffle_generator.get_state())
        return numbers, *generators, drawn, kept

    without = train("without")
    with_it = train("with", every_steps=20, episodes=3, deterministic=deterministic)
    for one, other in zip(without[:3], with_it[:3], strict=True):
        assert torch.equal(one, other)
    assert without[3:] == with_it[3:]
    found = [row["evaluation/return"] != "" for row in rows(tmp_path / "with")]
    assert found == [False, True, True, True, True, False]  # 20, 40, 60 and 80 lie in these
    row = rows(tmp_path / "with")[1]
    assert row["evaluation/length"] == "5.0" and row["evaluation/success"] == "1.0"


def agent_of(run: Path, **others: Any) -> RecurrentA2C:
    return RecurrentA2C("CartPole-v1", run_dir=str(run), **{**SMALL, **others})


def test_the_best_policy_is_kept_and_loads_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    agent = agent_of(run, checkpoint={"keep": 1})
    returns = iter([3.0, 7.0, 7.0, 5.0])
    weights: list[torch.Tensor] = []

    def scores(*args: Any, **kwargs: Any) -> Any:
        weights.append(agent.parameters[0].detach().clone())
        return type(
            "Result", (), {"mean": next(returns), "std": 0.0, "lengths": [1], "success_rate": None}
        )()

    monkeypatch.setattr("xlstm_rl.callbacks.evaluation.evaluate", scores)
    callback = PeriodicEvaluation(ROLLOUT, episodes=2)
    agent.learn(4 * ROLLOUT, callbacks=[callback])
    best = load_policy(run, "best")
    assert torch.equal(next(iter(best.network.parameters())), weights[1])  # the first of equals
    told = json.loads((run / "best" / "evaluation.json").read_text())
    assert told["step"] == 32 and told["mean"] == 7.0 and callback.best == 7.0
    assert sorted(p.name for p in (run / "best").iterdir()) == [
        "evaluation.json",
        "policy.safetensors",
        "policy.yaml",
        "trainer.pt",
    ]
    # What trains on beats what stands there, or leaves it.
    returns = iter([6.0, 8.0])
    again = PeriodicEvaluation(ROLLOUT, episodes=2)
    agent.learn(ROLLOUT, callbacks=again)
    assert again.best == 7.0 and torch.equal(
        next(iter(load_policy(run, "best").network.parameters())), weights[1]
    )
    agent.learn(ROLLOUT, callbacks=again)
    assert torch.equal(next(iter(load_policy(run, "best").network.parameters())), weights[-1])
    assert not [p for p in run.iterdir() if p.name.startswith(".best")]


def test_a_run_killed_while_its_best_was_replaced_loads_the_one_before(tmp_path: Path) -> None:
    run = tmp_path / "run"
    agent_of(run, evaluation={"every_steps": ROLLOUT, "episodes": 1}).learn(ROLLOUT)
    (run / "best").rename(run / ".best.old")
    (run / ".best.part").mkdir()
    load_policy(run, "best")
    agent = agent_of(tmp_path / "other")
    agent._run.folder = run
    agent.save_best({"mean": 1.0})
    assert sorted(p.name for p in run.iterdir() if "best" in p.name) == ["best"]


def test_checkpoints_of_a_run_load_by_their_names(tmp_path: Path) -> None:
    run = tmp_path / "run"
    agent_of(run, checkpoint={"every_steps": ROLLOUT}).learn(2 * ROLLOUT)
    for checkpoint in ("latest", 16, "32"):
        load_policy(run, checkpoint)
    for wrong, message in (
        ("best", r"has no best/; training with evaluation\.every_steps keeps one"),
        (17, r"has no checkpoint of 17 steps; it has 16, 32"),
        ("cpu", r"checkpoint='cpu': expected latest, best or the steps .* device=\.\.\."),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_policy(run, wrong)


def test_the_best_belongs_to_its_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    agent_of(run, evaluation={"every_steps": ROLLOUT, "episodes": 1}).learn(ROLLOUT)
    assert run_of(run / "best") == run == run_of(run / "checkpoints" / "16")


def test_the_command_line_evaluates_while_it_trains(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = "--total-steps 64 --env.num-envs 2 --agent.rollout-steps 8 --agent.minibatches 1"
    asked = "--evaluation.every-steps 32 --evaluation.episodes 2"
    assert main(["train", *words.split(), *asked.split(), "--run-dir", str(run)]) == 0
    told = [row["evaluation/return"] for row in rows(run)]
    assert [one != "" for one in told] == [False, True, False, True]
    assert main(["eval", str(run / "best"), "--episodes", "1"]) == 0
    assert (run / "eval.json").is_file()


def test_training_stops_where_an_evaluation_reaches_the_return(tmp_path: Path) -> None:
    agent = agent_of(tmp_path / "run")
    agent.learn(8 * ROLLOUT, callbacks=PeriodicEvaluation(2 * ROLLOUT, 2, stop_at=1.0))
    assert agent.steps_done == 2 * ROLLOUT


def test_options_of_an_evaluation_that_is_not_asked_for_are_refused() -> None:
    for wrong in ({"episodes": 5}, {"deterministic": False}):
        with pytest.raises(ConfigError, match=r"evaluation\.every_steps is 0"):
            RecurrentA2C("CartPole-v1", evaluation=wrong)
    with pytest.raises(ConfigError, match=r"evaluation\.episodes=0: expected an integer >= 1"):
        RecurrentA2C("CartPole-v1", evaluation={"every_steps": 10, "episodes": 0})


def test_an_environment_that_cannot_be_made_again_is_told_before_training(tmp_path: Path) -> None:
    vector = SyncVectorEnv([Draws] * 2)
    agent = RecurrentA2C(vector, memory=SMALL["memory"], run_dir=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="pass `env`"):
        agent.learn(ROLLOUT, callbacks=PeriodicEvaluation(ROLLOUT))
    assert agent.steps_done == 0
    agent.learn(64, callbacks=PeriodicEvaluation(ROLLOUT, 1, env=Draws))
    assert agent.steps_done == 64


def test_an_environment_that_breaks_in_an_evaluation_is_told_with_the_callback() -> None:
    class Breaks(Draws):
        def step(self, action: Any) -> Any:
            raise RuntimeError("out of order")

    agent = RecurrentA2C(Draws, **SMALL, logger={"kind": "none"})
    line = r"^callback PeriodicEvaluation\.on_update at step 16: EnvError: .*out of order"
    with pytest.raises(CallbackError, match=line):
        agent.learn(ROLLOUT, callbacks=PeriodicEvaluation(ROLLOUT, 1, env=Breaks))
