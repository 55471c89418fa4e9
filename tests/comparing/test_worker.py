"""One run of a comparison: made, gone on with, evaluated; in this process."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xlstm_rl import evaluate, load_policy
from xlstm_rl.agents import TrainConfig, make_agent
from xlstm_rl.comparing.contenders import configured
from xlstm_rl.comparing.job import DONE, Job
from xlstm_rl.comparing.plan import Case, make_jobs
from xlstm_rl.comparing.worker import work
from xlstm_rl.config import ConfigError, config_from_dict
from xlstm_rl.memory import MemoryConfig

EVALUATION = {"episodes": 3, "seed": 5, "deterministic": True}


def a_config(**options: Any) -> TrainConfig:
    values = {
        "total_steps": 128,
        "env": {"num_envs": 2},
        "memory": MemoryConfig("gru", width=8),
        "agent": {"rollout_steps": 16, "epochs": 1, "minibatches": 1},
        "logger": {"kind": "csv"},
        "checkpoint": {"every_steps": 32},
    }
    return config_from_dict(TrainConfig, values | options)


def a_job(out: Path, config: TrainConfig | None = None) -> Job:
    (job,) = make_jobs(
        [Case("case", config or a_config())], [configured(["gru"])], [3], out, EVALUATION
    )
    return job


def test_a_job_survives_the_way_to_its_process(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    assert Job.loads(job.dumps()) == job


def test_a_run_is_evaluated_by_its_last_policy(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    result = work(job)
    played = evaluate(load_policy(job.folder), None, 3, 5)
    assert (result.status, result.steps) == (DONE, 128)
    assert result.returns == played.returns
    assert job.result() == result and job.is_done()


def test_a_half_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole = work(a_job(tmp_path / "whole"))
    job = a_job(tmp_path / "parts")
    with make_agent(config_from_dict(TrainConfig, job.config)) as agent:
        agent.learn(on_update=lambda step, _: step < 64)
    assert not job.is_done()
    assert work(job) == whole
    metrics = (job.folder / "metrics.csv").read_text().splitlines()
    assert len(metrics) == 1 + 128 // 32


@pytest.mark.parametrize("damage", ["no checkpoint", "half a checkpoint"])
def test_a_run_that_cannot_go_on_begins_afresh(tmp_path: Path, damage: str) -> None:
    whole = work(a_job(tmp_path / "whole"))
    job = a_job(tmp_path / "parts")
    with make_agent(config_from_dict(TrainConfig, job.config)) as agent:
        agent.learn(on_update=lambda step, _: step < 64)
    if damage == "no checkpoint":
        shutil.rmtree(job.folder / "checkpoints")
        (job.folder / "latest").unlink()
    else:
        state = job.folder / "checkpoints" / "64" / "trainer.pt"
        state.write_bytes(state.read_bytes()[:100])
    assert work(job) == whole


def test_a_trained_run_with_other_episodes_is_evaluated_and_not_trained_again(
    tmp_path: Path,
) -> None:
    job = a_job(tmp_path)
    work(job)
    trained = (job.folder / "metrics.csv").read_bytes()
    more = replace(job, evaluation={**EVALUATION, "episodes": 4})
    assert not more.is_done()
    assert len(work(more).returns) == 4
    assert (job.folder / "metrics.csv").read_bytes() == trained


def test_another_run_in_the_folder_is_refused_before_anything_runs(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    work(job)
    before = sorted(os.walk(tmp_path))
    with pytest.raises(ConfigError, match=r"other options .*agent.gamma=0.99 there, 0.5 now"):
        agent = {"rollout_steps": 16, "epochs": 1, "minibatches": 1, "gamma": 0.5}
        a_job(tmp_path, a_config(agent=agent))
    assert sorted(os.walk(tmp_path)) == before


def test_another_device_or_logger_is_the_same_run(tmp_path: Path) -> None:
    work(a_job(tmp_path))
    assert a_job(tmp_path, a_config(device="cpu", logger={"kind": "jsonl"})).is_done()
