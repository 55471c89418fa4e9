"""With `env.on_error: restart`, training goes on when the process of an environment dies."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gymnasium import spaces

from xlstm_rl.errors import EnvError

VECTOR = spaces.Box(-1, 1, (3,))
POSE = spaces.Dict(pose=VECTOR, room=spaces.Discrete(4, start=1))
MODES = ["same_step", "disabled", "next_step"]

pytestmark = pytest.mark.usefixtures("forked")


def _kill(_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(_: Any) -> Any:
    os._exit(3)


@pytest.mark.parametrize(
    ("death", "mode"), [*(("SIGKILL", mode) for mode in MODES), ("exit status 3", "same_step")]
)
def test_a_process_that_dies_is_replaced(
    fragile: type[Any],
    restarting_agent: Callable[..., Any],
    train_through_faults: Callable[[Any, int], None],
    death: str,
    mode: str,
) -> None:
    fault = _kill if death == "SIGKILL" else _exit
    agent = restarting_agent(lambda: fragile(POSE, fault), vectorization="async", autoreset=mode)
    message = rf"environment [01]: its process died in step 2 of its episode \(.*{death}\)"
    with pytest.warns(RuntimeWarning, match=message) as caught:
        train_through_faults(agent, 1)
    told = [str(one.message) for one in caught]
    for row in (0, 1):
        mine = [text for text in told if text.startswith(f"environment {row}:")]
        assert len(mine) == 48 // (9 if mode == "next_step" else 7)
        assert all(f"restarted, restart {n + 1} of" in text for n, text in enumerate(mine))
    agent.close()
    assert not any(one.is_alive() for one in agent.env.processes)


def test_a_process_that_dies_again_and_again_is_given_up(
    fragile: type[Any], restarting_agent: Callable[..., Any]
) -> None:
    class Hopeless(fragile):
        def step(self, action: Any) -> Any:
            self.episode, self.t = 2, 2
            return super().step(action)

    agent = restarting_agent(lambda: Hopeless(VECTOR, _exit), num_envs=1, vectorization="async")
    message = r"environment 0: its process died in step 0 of its episode \(exit status 3\)"
    with (
        pytest.warns(RuntimeWarning, match=message) as caught,
        pytest.raises(EnvError, match=rf"step 2: {message} \(3 times in a row: .* gives up"),
    ):
        agent.learn(64)
    # newer Pythons warn of a fork beside threads, too
    of_restarts = [one for one in caught if one.category is RuntimeWarning]
    assert len(of_restarts) == 2
    assert not any(one.is_alive() for one in agent.env.processes)
    agent.close()


@pytest.mark.filterwarnings("ignore:environment 0 raised:RuntimeWarning")  # in its process
@pytest.mark.parametrize("mode", MODES)
def test_a_process_that_raises_between_its_deaths_is_given_up(
    fragile: type[Any], restarting_agent: Callable[..., Any], mode: str, tmp_path: Path
) -> None:
    raised = tmp_path / "raised"

    class Hopeless(fragile):
        def step(self, action: Any) -> Any:
            if raised.exists():
                raised.unlink()
                os._exit(3)
            raised.write_text("")
            raise ZeroDivisionError("no floor")

    agent = restarting_agent(
        lambda: Hopeless(VECTOR, _exit), num_envs=1, vectorization="async", autoreset=mode
    )
    with (
        pytest.warns(RuntimeWarning, match="environment 0: its process died"),
        pytest.raises(EnvError, match=r"environment 0: its process died in step 0 .*\(3 times"),
    ):
        agent.learn(64)
