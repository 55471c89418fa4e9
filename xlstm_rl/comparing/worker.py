"""The process of one run: trains it, or trains it on, and evaluates what was saved last.

`python -m xlstm_rl.comparing.worker` reads its job as JSON from standard input.
"""

import shutil
import signal
import sys
from pathlib import Path

from xlstm_rl.agents import RecurrentAgent, TrainConfig, agent_class, make_agent
from xlstm_rl.comparing.job import DONE, Job, Result
from xlstm_rl.config import ConfigError, config_from_dict
from xlstm_rl.config.errors import one_line
from xlstm_rl.errors import CheckpointError
from xlstm_rl.evaluation import evaluate
from xlstm_rl.runs.checkpoint import load_policy
from xlstm_rl.runs.folder import CONFIG_FILE, latest_checkpoint
from xlstm_rl.runs.signals import Stopped, stopped_once


def work(job: Job) -> Result:
    """Train what is left of a job, evaluate it and write its result.

    Raises:
        Exception: the training failed; what it saved before stays.
    """
    steps = _train(job)
    policy = load_policy(job.folder, trust_code=True)  # named by who started the comparison
    played = evaluate(policy, **job.evaluation)
    result = Result(DONE, "", job.evaluation, played.returns, played.success_rate, steps)
    result.write(job)
    return result


def _train(job: Job) -> int:
    """Train a run to its end and return the steps that it has."""
    config = config_from_dict(TrainConfig, job.config)
    agent = _half_run(config, job.folder)
    if agent is None:
        agent = make_agent(config)
    with agent, stopped_once():
        agent.open_run()
        if _is_to_go_on(agent):
            agent.learn()
        return agent.steps_done


def _half_run(config: TrainConfig, folder: Path) -> RecurrentAgent | None:
    """Return the agent of a run that stood still, to go on; None: begin afresh."""
    if not (folder / CONFIG_FILE).is_file():
        return None
    try:
        latest_checkpoint(folder)
        return agent_class(config).load(folder, trust_code=True)
    except CheckpointError as error:
        print(f"begins afresh: {error}", file=sys.stderr)
        shutil.rmtree(folder)
        return None


def _is_to_go_on(agent: RecurrentAgent) -> bool:
    try:
        return agent.steps_to_go() > 0
    except ConfigError:  # finished
        return False


def main() -> int:
    """Run the job that stands on standard input; what fails is the last line of the log."""
    job = Job.loads(sys.stdin.read())
    try:
        work(job)
    except Stopped as stop:
        return 128 + stop.number
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        print(f"{type(error).__name__}: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
