"""A training that is killed at random moments, those of saving among them, loads and goes on."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.errors import CheckpointError

BEFORE_A_CHECKPOINT = {"config.yaml", "metrics.csv", "episodes.csv", "lock", "checkpoints"}

# Every update is saved, and trains on where a run stands: about half of the time is saving.
SCRIPT = """
    import sys
    from pathlib import Path

    from xlstm_rl import RecurrentPPO

    run = Path(sys.argv[1])
    if (run / "latest").exists():
        agent = RecurrentPPO.load(run)
    else:
        agent = RecurrentPPO(
            "CartPole-v1", run_dir=str(run), total_steps=1_000_000, env={"num_envs": 2},
            memory={"width": 8, "num_heads": 2}, checkpoint={"every_steps": 16},
            agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
        )
    print("ready", flush=True)
    agent.learn(1_000_000)
"""


def kill_once(run: Path, rng: random.Random) -> None:
    """Train in a process of its own, and kill it in the middle of something."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    ready = process.stdout.readline()
    assert ready == "ready\n", process.stderr.read()
    time.sleep(rng.uniform(0.0, 1.5))
    assert process.poll() is None, process.communicate()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def steps_logged(run: Path) -> list[int]:
    text = (run / "metrics.csv").read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()[1:]
    return [int(line.partition(",")[0]) for line in lines]


def hold(run: Path, kills: int, seed: int) -> int:
    """Kill a run again and again; after each kill it must load. Returns how often it did."""
    rng, loaded, before = random.Random(seed), 0, 0
    while loaded < kills:
        kill_once(run, rng)
        try:
            policy = load_policy(run)
        except CheckpointError as error:
            assert "has no checkpoint yet" in str(error) and before == 0
            for path in run.iterdir():  # killed before the first checkpoint: it begins anew
                assert path.name in BEFORE_A_CHECKPOINT
            subprocess.run(["rm", "-r", str(run)], check=True)
            continue
        assert all(torch.isfinite(one).all() for one in policy.parameters())
        with RecurrentPPO.load(run) as agent:
            assert agent.steps_done >= before
            before = agent.steps_done
            assert agent.learn(16).steps_done == before + 16
        logged = steps_logged(run)
        assert logged == list(range(16, before + 17, 16)), "a row is missing, or stands twice"
        before += 16
        loaded += 1
    return loaded


def test_a_run_that_is_killed_loads_and_goes_on(tmp_path: Path) -> None:
    assert hold(tmp_path / "run", 1, seed=1) == 1


@pytest.mark.slow
def test_a_run_that_is_killed_fifty_times_loads_and_goes_on(tmp_path: Path) -> None:
    assert hold(tmp_path / "run", 50, seed=2) == 50
