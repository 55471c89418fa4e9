"""The process of one run: trains it, or trains it on, and evaluates what was saved last.

`python -m xlstm_rl.comparing.worker` reads its job as JSON from standard input.
"""

import ctypes
import signal
import sys
from contextlib import suppress

from xlstm_rl.agents import RecurrentAgent, TrainConfig, make_agent
from xlstm_rl.comparing.half_run import half_run
from xlstm_rl.comparing.job import DONE, FAILED, Job, Result
from xlstm_rl.config import ConfigError, config_from_dict
from xlstm_rl.config.errors import one_line
from xlstm_rl.evaluation import evaluate
from xlstm_rl.runs.checkpoint import load_policy
from xlstm_rl.runs.signals import Stopped, stopped_once

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


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
    agent = half_run(config, job.folder)
    if agent is None:
        agent = make_agent(config)
    with agent, stopped_once():
        agent.open_run()
        if _is_to_go_on(agent):
            agent.learn()
        return agent.steps_done


def _is_to_go_on(agent: RecurrentAgent) -> bool:
    try:
        return agent.steps_to_go() > 0
    except ConfigError:  # finished
        return False


def main() -> int:
    """Run the job that stands on standard input; what fails stands in the result and the log."""
    _end_with_parent()
    job = Job.loads(sys.stdin.read())
    try:
        work(job)
    except Stopped as stop:
        return 128 + stop.number
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        why = f"{type(error).__name__}: {one_line(error)}"
        print(why, file=sys.stderr)
        with suppress(OSError):  # a full disk: it is in the log all the same
            Result(FAILED, why).write(job)
        return 1
    return 0


def _end_with_parent() -> None:
    """Ask Linux to end this process, which saves its run, when the comparison is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
