"""One run of a comparison: made, gone on with, evaluated; in this process."""

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xlstm_rl import evaluate, load_policy
from xlstm_rl.agents import TrainConfig, make_agent
from xlstm_rl.comparing import worker
from xlstm_rl.comparing.contenders import configured
from xlstm_rl.comparing.job import DONE, FAILED, Job
from xlstm_rl.comparing.plan import Case, make_jobs
from xlstm_rl.comparing.worker import work
from xlstm_rl.config import ConfigError, config_from_dict, load_yaml
from xlstm_rl.errors import CheckpointError
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.runs.lock import run_locked

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
    a_half_run(job)
    assert not job.is_done()
    assert work(job) == whole
    metrics = (job.folder / "metrics.csv").read_text().splitlines()
    assert len(metrics) == 1 + 128 // 32


def a_half_run(job: Job) -> None:
    with make_agent(config_from_dict(TrainConfig, job.config)) as agent:
        agent.learn(on_update=lambda step, _: step < 64)


def damage(checkpoint: Path) -> None:
    state = checkpoint / "trainer.pt"
    state.write_bytes(state.read_bytes()[:100])


def files_in(folder: Path) -> dict[Path, bytes]:
    return {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_a_run_without_a_checkpoint_begins_afresh(tmp_path: Path) -> None:
    whole = work(a_job(tmp_path / "whole"))
    job = a_job(tmp_path / "parts")
    a_half_run(job)
    shutil.rmtree(job.folder / "checkpoints")
    (job.folder / "latest").unlink()
    assert work(job) == whole


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before_it(tmp_path: Path) -> None:
    whole = work(a_job(tmp_path / "whole"))
    job = a_job(tmp_path / "parts")
    a_half_run(job)
    newest = job.folder / "checkpoints" / "64"
    damage(newest)
    kept = (newest / "trainer.pt").read_bytes()
    assert work(job) == whole
    assert (newest.with_name("64.unread") / "trainer.pt").read_bytes() == kept


def test_a_run_whose_checkpoints_are_all_damaged_fails_and_stays(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    a_half_run(job)
    for checkpoint in (job.folder / "checkpoints").iterdir():
        damage(checkpoint)
    before = files_in(job.folder)
    with pytest.raises(CheckpointError, match=r"64.*damaged"):
        work(job)
    assert files_in(job.folder) == before


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_a_run_that_a_process_trains_is_not_touched(tmp_path: Path, has_checkpoint: bool) -> None:
    job = a_job(tmp_path)
    a_half_run(job)
    if not has_checkpoint:
        shutil.rmtree(job.folder / "checkpoints")
        (job.folder / "latest").unlink()
    with run_locked(job.folder):
        before = files_in(job.folder)
        with pytest.raises(ConfigError, match="is training in it"):
            work(job)
        assert files_in(job.folder) == before


def test_options_that_may_differ_hold_for_a_run_that_goes_on(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    a_half_run(job)
    other = a_config(logger={"kind": "jsonl"}, checkpoint={"every_steps": 16, "keep": 2})
    work(a_job(tmp_path, other))
    assert (job.folder / "metrics.jsonl").read_text().count("\n") == 64 // 32
    steps = {int(one.name) for one in (job.folder / "checkpoints").iterdir()}
    assert len(steps) == 2 and max(steps) == 128
    written = load_yaml(job.folder / "config.yaml")
    assert written["checkpoint"]["keep"] == 2 and written["logger"]["kind"] == "jsonl"


def test_a_result_without_its_run_does_not_count(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    work(job)
    shutil.rmtree(job.folder)
    assert not job.is_done()
    work(job)
    assert job.is_done()


def test_what_fails_is_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = a_job(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(job.dumps()))
    job.folder.mkdir(parents=True)
    (job.folder / "mine.txt").write_text("a file of somebody")
    assert worker.main() == 1
    result = job.result()
    assert result is not None and result.status == FAILED
    assert result.error.startswith("ConfigError: ") and "not empty" in result.error


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
