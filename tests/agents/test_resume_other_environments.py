"""A run that goes on in environments of the same class that were made with something else."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentPPO
from xlstm_rl.cli.main import main
from xlstm_rl.envs.snapshots.as_made import difference, values_as_made

SMALL: dict[str, Any] = {
    "memory": {"pattern": "m", "width": 8, "num_heads": 2},
    "agent": {"rollout_steps": 8, "minibatches": 1, "epochs": 1},
    "logger": {"kind": "none"},
}


class Prize(gymnasium.Env[Any, Any]):
    """Pays what it was made with, for five steps; at random is what begins an episode."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, pays: float = 1.0) -> None:
        self.pays, self.goals, self.seed_of_mine = pays, {7: [1, 2]}, np.random.randint(9**9)
        self.bound: float | None = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.luck = 0, float(self.np_random.random())
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.zeros(1, np.float32), self.pays, self.steps == 5, False, {}


def trained(run: Path, vectorization: str) -> RecurrentPPO:
    env = {"num_envs": 2, "vectorization": vectorization}
    agent = RecurrentPPO(Prize, env=env, run_dir=str(run), **SMALL)
    with agent:
        agent.learn(32)
    return agent


@pytest.mark.parametrize(
    ("vectorization", "pays"),
    [
        *(("sync", 1.0), ("sync", 5.0)),
        *(pytest.param("async", pays, marks=pytest.mark.slow) for pays in (1.0, 5.0)),
    ],
)
def test_new_episodes_begin_in_environments_that_were_made_with_something_else(
    vectorization: str, pays: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "run", vectorization)
    with RecurrentPPO.load(tmp_path / "run", lambda: Prize(pays)) as agent:
        agent.learn(32)
        assert max(agent._episodes._returns) == 5 * pays
    told = " ".join(capsys.readouterr().err.split())
    is_other = pays != 1.0
    assert ("new episodes begin: the environments are others:" in told) == is_other
    assert ("pays was 1.0, is 5.0" in told) == is_other
    assert ("new episodes" in told) == is_other


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        (["--env.kwargs.length", "3"], ["--env.kwargs.length", "4"], "length was 3, is 4"),
        ([], ["--env.max-episode-steps", "2"], ""),
    ],
)
def test_an_option_of_the_environment_has_its_effect_where_a_run_goes_on(
    before: list[str],
    after: list[str],
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = str(tmp_path / "run")
    small = ["--memory.width", "8", "--memory.num-heads", "2", "--logger.kind", "csv"]
    small += ["--agent.rollout-steps", "8", "--env.num-envs", "2", "--agent.minibatches", "1"]
    train = ["train", "--env.id", "xlstm_rl/MemoryChain-v0", *before, *small, "--run-dir", run]
    assert main([*train, "--total-steps", "64"]) == 0
    capsys.readouterr()
    assert main(["resume", run, "--total-steps", "640", *after]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "new episodes begin" in told and name in told
    lengths = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = lengths[0].split(",").index("episode/length")
    last = float(lengths[-1].split(",")[column])
    assert last == (5.0 if name else 2.0)


def test_what_an_episode_changes_and_seeds_are_left_out() -> None:
    one, other = Prize(), Prize()
    assert values_as_made(one) == values_as_made(other)
    found = values_as_made(one)
    assert found == {".pays": 1.0, ".goals[7][0]": 1, ".goals[7][1]": 2, ".bound": None}
    other.goals[7][1] = 3
    told = "the environments are others: goals[7][1] was 2, is 3"
    assert difference(found, values_as_made(other)) == told
    other = Prize()
    other.bound = 0.5
    told = "the environments are others: bound was None, is 0.5"
    assert difference(found, values_as_made(other)) == told


def test_a_checkpoint_without_these_values_and_a_damaged_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "run", "sync")
    (file,) = (tmp_path / "run").glob("checkpoints/*/trainer.pt")
    found = torch.load(file, weights_only=True)
    assert found["collector"]["made"]
    for made, is_told in ((None, False), ([1], True), ({1: 2}, False)):
        agent = RecurrentPPO.load(tmp_path / "run", Prize)
        own = agent._origin._states[0]["collector"]  # type: ignore[union-attr]
        if made is None:
            del own["made"]
        else:
            own["made"] = made
        with agent:
            agent.learn(16)
        assert ("new episodes begin" in capsys.readouterr().err) == is_told
