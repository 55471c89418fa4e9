import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.runs import run as run_module
from xlstm_rl.runs.signals import Stopped, signals_held, stopped_once


def test_the_first_signal_stops_and_the_next_ones_do_not() -> None:
    done: list[str] = []
    with stopped_once():
        with pytest.raises(Stopped, match="SIGTERM") as stop:
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        done.append("saved")
    assert stop.value.number == signal.SIGTERM
    assert isinstance(stop.value, KeyboardInterrupt)
    assert done == ["saved"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_that_a_hook_of_python_lost_stops_what_begins_next() -> None:
    with stopped_once():
        with suppress(Stopped):  # as Python does, called from C
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGTERM"), stopped_once():
            pytest.fail("it began")
    with stopped_once():  # a block of later has nothing to do with it
        pass


def test_a_signal_much_later_stops_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with stopped_once():
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
        now = time.monotonic() + 11.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        with pytest.raises(Stopped, match="SIGINT"):
            signal.raise_signal(signal.SIGINT)


def test_a_process_that_was_forked_inside_ends_by_the_signal() -> None:
    # In an interpreter of its own: forking one with threads is unsafe, and Python warns of it.
    script = """
        import os, signal
        from xlstm_rl.runs.signals import stopped_once

        with stopped_once():
            pid = os.fork()
            if pid == 0:
                try:
                    signal.raise_signal(signal.SIGTERM)
                finally:
                    os._exit(3)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (f"{-signal.SIGTERM}\n", "")


def test_held_signals_take_effect_when_the_block_is_done() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), signals_held():
        signal.raise_signal(signal.SIGINT)
        done.append("saved")
    assert done == ["saved"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_inside_is_kept_and_handlers_are_put_back() -> None:
    with pytest.raises(ValueError, match="disk"), signals_held():
        raise ValueError("disk")
    with pytest.raises(KeyboardInterrupt) as stop, signals_held():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("disk")
    assert isinstance(stop.value.__context__, ValueError)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_other_threads_save_as_before() -> None:
    done: list[str] = []

    def save() -> None:
        with stopped_once(), signals_held():
            done.append("saved")

    thread = threading.Thread(target=save)
    thread.start()
    thread.join()
    assert done == ["saved"]


def test_an_interrupt_while_a_checkpoint_is_written_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = run_module.write_checkpoint

    def interrupted(*args: object) -> None:
        signal.raise_signal(signal.SIGINT)
        write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "write_checkpoint", interrupted)
    agent = RecurrentPPO(
        "CartPole-v1",
        env={"num_envs": 2},
        memory={"width": 8, "num_heads": 2},
        agent={"rollout_steps": 8, "minibatches": 1},
        logger={"kind": "none"},
    )
    with pytest.raises(KeyboardInterrupt):
        agent.save(tmp_path / "run")
    load_policy(tmp_path / "run")
