"""Saving dies at each of its file operations in turn; what stood there before must load."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCENARIOS = ("over", "again", "next", "first")

# A process of its own, because forking is safest where no thread was ever started, and an audit
# hook stays for good. Python raises an audit event before each of the system calls named here, and
# the process ends there, by os._exit, without any cleaning up.
SCRIPT = """
    import os, shutil, sys
    from pathlib import Path

    import torch

    from xlstm_rl import RecurrentPPO, load_policy
    from xlstm_rl.errors import CheckpointError
    from xlstm_rl.runs.folder import checkpoint_steps, latest_checkpoint

    scenario, run, each = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    before, template = Path(sys.argv[2] + "-before"), Path(sys.argv[2] + "-template")
    agent = RecurrentPPO(
        "CartPole-v1", env={"num_envs": 2}, memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 1}, logger={"kind": "none"},
        checkpoint={"keep": 1},
    )

    def save(step, mark):
        with torch.no_grad():
            for weight in agent.parameters:
                weight.fill_(mark)
        agent.steps_done = step
        state = {**agent.trainer_state(), "mark": mark}
        if scenario == "over":
            agent._run._made.clear()
        agent._run.save(run, agent.policy, state, overwrite=scenario == "over")

    def marks():
        "What a policy and the trainer's state of the latest checkpoint were saved with."
        policy = load_policy(run)
        (mark,) = {x for weight in policy.parameters() for x in weight.detach().unique().tolist()}
        state = torch.load(latest_checkpoint(run) / "trainer.pt", weights_only=True)
        assert state["mark"] == mark, (state["mark"], mark)
        for step in checkpoint_steps(run):
            load_policy(run, step)
        return mark

    left, events = 0, []

    def die(event, arguments):
        global left
        changes = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir",
                   "os.listdir", "os.chmod", "os.truncate", "os.link", "os.symlink")
        if left > 0 and event in changes:
            left -= 1
            if left == 0:
                os._exit(9)

    sys.addaudithook(die)
    agent._run._create(run)
    if scenario == "again":  # the step that is the latest, as when a rollout ends on every_steps
        save(16, 1.0)
        new = 16
    elif scenario == "over":  # in place of another run
        save(16, 1.0)
        new = 32
    elif scenario == "next":  # another step, which also removes the old one
        save(16, 1.0)
        new = 32
    else:  # the first of a run
        new = 16
    shutil.copytree(run, template)
    found = set()
    for death in range(1, 1000, each):
        shutil.rmtree(run, ignore_errors=True)  # it may have lost its name
        shutil.copytree(template, run)
        pid = os.fork()
        if pid == 0:
            left = death
            save(new, 2.0)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status in (0, 9), status
        try:
            found.add(marks())
        except CheckpointError:
            assert scenario == "first" and status == 9, (death, sorted(os.listdir(run)))
            assert 2.0 not in found, "a checkpoint that stood there is gone"
        if status == 0:
            break
        save(new, 3.0)
        assert marks() == 3.0
        names = set(os.listdir(run)) - {"lock"}
        assert names == {"checkpoints", "config.yaml", "latest"}, names
        assert os.listdir(run / "checkpoints") == [str(new)], os.listdir(run / "checkpoints")
    assert status == 0 and death > 8, death
    assert found == ({2.0} if scenario == "first" else {1.0, 2.0}), found
    print("deaths:", death - 1)
"""


@pytest.mark.parametrize(
    ("scenario", "each"),  # each of so many operations is one at which it dies
    [
        ("over", 3),
        *(pytest.param(one, 1, marks=pytest.mark.slow) for one in SCENARIOS),
    ],
)
def test_a_death_at_any_file_operation_leaves_the_old_or_the_new_checkpoint(
    scenario: str, each: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), scenario]
    done = subprocess.run(
        [*command, str(tmp_path / "run"), str(each)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "deaths:" in done.stdout
