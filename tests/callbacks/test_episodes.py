import csv
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from xlstm_rl import RecurrentA2C
from xlstm_rl.callbacks.episodes import EPISODES_FILE
from xlstm_rl.cli import main
from xlstm_rl.config import ConfigError

pytestmark = pytest.mark.usefixtures("forked")


class Walks(gymnasium.Env[Any, Any]):
    """Episode e has 2 + e % 2 steps of reward 1 and says its number; odd ones say no more."""

    observation_space, action_space = spaces.Box(-9, 9, (2,)), spaces.Discrete(2)

    def __init__(self) -> None:
        self.episode = -1

    def _info(self, over: bool) -> dict[str, Any]:
        info: dict[str, Any] = {"number": float(self.episode) if over else -1.0, "name": "walk"}
        if self.episode % 2 == 0:
            info |= {"coverage": np.float32(0.25) if over else 9, "is_success": over}
        return info

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.zeros(2, np.float32), self._info(False)

    def step(self, action: Any) -> Any:
        self.t += 1
        over, odd = self.t == 2 + self.episode % 2, self.episode % 2 == 1
        obs = np.zeros(2, np.float32)
        return obs, 1.0, over and not odd, over and odd, self._info(over)


def agent_of(run: Path, **env: Any) -> RecurrentA2C:
    keywords = ["number", "coverage", "name", "never"]
    return RecurrentA2C(
        Walks,
        run_dir=str(run),
        env={"num_envs": 2, "info_keywords": keywords, **env},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 10},
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("autoreset", ["same_step", "next_step", "disabled"])
def test_every_episode_has_its_row(autoreset: str, vectorization: str, tmp_path: Path) -> None:
    agent = agent_of(tmp_path / "run", autoreset=autoreset, vectorization=vectorization)
    agent.learn(20).learn(20)
    agent.close()
    found = rows(tmp_path / "run" / EPISODES_FILE)
    # In 20 steps of each environment: episodes of 2, 3, 2, 3, ...; with `next_step` each is
    # followed by a step that only resets.
    gap, at, expected = int(autoreset == "next_step"), 0, []
    for episode in range(9):
        at += 2 + episode % 2
        if at <= 20:
            expected += [(2 * at, env, episode) for env in range(2)]
        at += gap
    assert [(int(r["step"]), int(r["environment"]), int(float(r["number"]))) for r in found] == (
        expected
    )
    for row, (_, _, episode) in zip(found, expected, strict=True):
        even = episode % 2 == 0
        assert float(row["return"]) == float(row["length"]) == 2 + episode % 2
        assert row["coverage"] == ("0.25" if even else "")
        assert row["success"] == ("1.0" if even else "")
        assert row["name"] == row["never"] == ""
    times = [float(row["time"]) for row in found]
    assert times == sorted(times) and times[0] > 0
    metrics = rows(tmp_path / "run" / "metrics.csv")[-1]
    assert float(metrics["info/number"]) == pytest.approx(np.mean([e for _, _, e in expected]))
    assert metrics["info/coverage"] == "0.25" and metrics["episode/success"] == "1.0"
    assert "info/name" not in metrics and "info/never" not in metrics


def test_a_training_that_goes_on_drops_rows_of_steps_that_are_not_done(tmp_path: Path) -> None:
    run = tmp_path / "run"
    agent = agent_of(run)
    agent.learn(20)
    before = rows(run / EPISODES_FILE)
    with (run / EPISODES_FILE).open("a") as file:
        file.write("9999,1.0,0,1.0,1,,,,,\n21,2")  # of a run that was killed in a row
    agent.learn(20)
    found = rows(run / EPISODES_FILE)
    assert found[: len(before)] == before
    assert max(int(row["step"]) for row in found) == 40 and len(found) > len(before)


@pytest.mark.parametrize("damaged", [b"\xda\xff\x00", b"step,time\n16,x\n"])
def test_a_damaged_file_stays_as_it_is_and_stops_nothing(
    damaged: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    agent = agent_of(run)
    agent.learn(20)
    (run / EPISODES_FILE).write_bytes(damaged)
    agent.learn(20)
    assert (run / EPISODES_FILE).read_bytes() == damaged
    assert "episodes.csv cannot be written" in capsys.readouterr().err


def test_without_a_logger_there_is_none(tmp_path: Path) -> None:
    agent = RecurrentA2C(
        Walks,
        run_dir=str(tmp_path / "run"),
        env={"num_envs": 2},
        logger={"kind": "none"},
        memory={"width": 8, "num_heads": 2},
    )
    agent.learn(1)
    assert not (tmp_path / "run" / EPISODES_FILE).exists()


def test_vectors_on_tensors_have_rows_too(tmp_path: Path) -> None:
    agent = RecurrentA2C(
        "xlstm_rl/MemoryChain-v0",
        run_dir=str(tmp_path / "run"),
        env={"num_envs": 3, "kwargs": {"length": 4, "tensors": True}},
        memory={"width": 8, "num_heads": 2},
    )
    agent.learn(1)
    found = rows(tmp_path / "run" / EPISODES_FILE)
    assert len(found) == 3 * (32 // 5) and {row["length"] for row in found} == {"5"}
    assert all(math.isfinite(float(row["return"])) for row in found)


def test_the_command_line_takes_keywords(tmp_path: Path) -> None:
    words = ["train", "--total-steps", "1", "--run-dir", str(tmp_path / "run")]
    assert main([*words, "--env.info-keywords", "a", "b"]) == 0
    with (tmp_path / "run" / EPISODES_FILE).open() as file:
        assert file.readline() == "step,time,environment,return,length,success,a,b\n"
    with pytest.raises(ConfigError, match=r"env\.info_keywords: expected a list"):
        RecurrentA2C("CartPole-v1", env={"info_keywords": 3})


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("autoreset", ["same_step", "next_step", "disabled"])
def test_a_keyword_that_no_episode_has_is_named_once(
    autoreset: str, vectorization: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keywords = ["numbr", "name", "coverage"]
    options = {"autoreset": autoreset, "vectorization": vectorization, "info_keywords": keywords}
    agent = agent_of(tmp_path / "run", **options)
    agent.learn(20).learn(20)
    agent.close()
    told = [line for line in capsys.readouterr().err.splitlines() if "keywords" in line]
    assert told == [
        "xlstm_rl: env.info_keywords: the info at the end of an episode has no number under numbr "
        "(did you mean number?), name; it has coverage, is_success, name, number"
    ]


def test_a_keyword_that_a_vector_on_tensors_does_not_have_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    agent = RecurrentA2C(
        "xlstm_rl/MemoryChain-v0",
        env={"num_envs": 3, "kwargs": {"length": 4, "tensors": True}, "info_keywords": ["never"]},
        logger={"kind": "none"},
        memory={"width": 8, "num_heads": 2},
    )
    agent.learn(1)
    told = [line for line in capsys.readouterr().err.splitlines() if "keywords" in line]
    assert len(told) == 1 and "no number under never; it has " in told[0]
