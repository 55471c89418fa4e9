import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.callbacks import Callback, PeriodicCheckpoint, StopAtReturn
from xlstm_rl.config import ConfigError
from xlstm_rl.errors import CallbackError, TrainingError

ROLLOUT = 16  # steps: 2 environments, 8 steps each
SMALL: dict[str, Any] = {
    "env": {"num_envs": 2},
    "memory": {"width": 8, "num_heads": 2},
    "agent": {"rollout_steps": 8},
    "logger": {"kind": "csv"},
}


def small(run: Path, algorithm: Any = RecurrentA2C, **others: Any) -> Any:
    return algorithm("CartPole-v1", run_dir=str(run), **{**SMALL, **others})


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Diary(Callback):
    """Writes down what was called, and stops where it is told to."""

    def __init__(self, stop_in: str = "") -> None:
        self.stop_in, self.calls = stop_in, list[str]()

    def _note(self, name: str) -> bool | None:
        self.calls.append(name)
        return False if name == self.stop_in else None

    def on_training_start(self) -> bool | None:
        assert self.agent.run_dir is not None and self.agent.run_dir.is_dir()
        return self._note("start")

    def on_rollout_end(self, rollout: Any) -> bool | None:
        assert rollout.data.batch_size == (2, 8)
        return self._note("rollout")

    def on_update(self, step: int, metrics: dict[str, float]) -> bool | None:
        assert step == self.agent.steps_done and "loss/policy" in metrics
        return self._note("update")

    def on_training_end(self) -> None:
        self._note("end")

    def close(self) -> None:
        self._note("close")


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
def test_hooks_are_called_in_the_order_of_training(algorithm: Any, tmp_path: Path) -> None:
    diary = Diary()
    agent = small(
        tmp_path / "run",
        algorithm,
        agent={"rollout_steps": 8, "epochs": 1}
        | ({"minibatches": 1} if algorithm is RecurrentPPO else {}),
    )
    agent.learn(2 * ROLLOUT, callbacks=[diary])
    assert diary.calls == ["start", *["rollout", "update"] * 2, "end", "close"]


@pytest.mark.parametrize("form", [list, tuple, iter, lambda one: one[0]])
def test_callbacks_come_as_one_or_as_several(form: Callable[[Any], Any], tmp_path: Path) -> None:
    diary = Diary()
    small(tmp_path / "run").learn(ROLLOUT, callbacks=form([diary]))
    assert diary.calls == ["start", "rollout", "update", "end", "close"]


@pytest.mark.parametrize(
    ("stop_in", "steps"), [("start", 0), ("rollout", ROLLOUT), ("update", ROLLOUT)]
)
def test_false_from_any_hook_stops_after_saving(stop_in: str, steps: int, tmp_path: Path) -> None:
    other, seen = Diary(), list[int]()
    agent = small(tmp_path / "run")
    agent.learn(4 * ROLLOUT, lambda step, _: seen.append(step), callbacks=[Diary(stop_in), other])
    assert agent.steps_done == steps
    assert (tmp_path / "run" / "latest").read_text() == f"{steps}\n"
    assert len(rows(tmp_path / "run")) == len(seen) == steps // ROLLOUT
    assert other.calls[-2:] == ["end", "close"]  # those beside it are called all the same


@pytest.mark.parametrize(
    ("answer", "stops"),
    [
        (np.False_, True),
        (np.array(False), True),
        (torch.tensor(False), True),
        (torch.tensor(True), False),
        (torch.tensor(0.0), False),
        (0, False),
        (np.array([False]), False),
    ],
    ids=repr,
)
def test_false_of_any_package_stops_and_no_other_value(
    answer: Any, stops: bool, tmp_path: Path
) -> None:
    agent = small(tmp_path / "run")
    agent.learn(2 * ROLLOUT, on_update=lambda step, metrics: answer)
    assert agent.steps_done == (1 if stops else 2) * ROLLOUT


def test_what_callbacks_add_is_logged_in_the_row_of_their_update(tmp_path: Path) -> None:
    class Adds(Callback):
        def on_update(self, step: int, metrics: dict[str, float]) -> None:
            metrics["my/step"] = step
            self.agent.log({"my/double": torch.tensor(2.0 * step), "my/array": np.array([step])})

    seen: list[Any] = []
    agent = small(tmp_path / "run", agent={**SMALL["agent"], "log_interval": 1})
    agent.log({"my/before": 1, "my/truth": True})
    agent.learn(2 * ROLLOUT, lambda _, metrics: seen.append(metrics["my/step"]), callbacks=Adds())
    one, two = rows(tmp_path / "run")
    names = ("my/step", "my/double", "my/array", "my/before", "my/truth")
    assert [float(one[name]) for name in names] == [16.0, 32.0, 16.0, 1.0, 1.0]
    assert [two[name] for name in names] == ["32.0", "64.0", "32.0", "", ""]
    assert seen == [16, 32]  # `on_update` is called behind them


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"my/x": "fast"}, r"metric 'my/x' is 'fast', expected a number"),
        ({"my/x": [1, 2]}, r"metric 'my/x' is \[1, 2\], expected a number"),
        ({"my/x": None}, r"metric 'my/x' is None, expected a number"),
        ({"my/x": torch.ones(2)}, r"metric 'my/x' is tensor.*, expected a number"),
        ({3: 1.0}, r"metric 3, expected a name"),
        ({"step": 1.0}, r"metric 'step': every row has it"),
    ],
)
def test_what_is_no_number_is_refused_where_it_is_added(
    values: Any, message: str, tmp_path: Path
) -> None:
    agent = small(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        agent.log(values)

    class Adds(Callback):
        def on_update(self, step: int, metrics: dict[str, float]) -> None:
            metrics.update(values)

    with pytest.raises(
        CallbackError, match=r"^callback .*Adds\.on_update at step 16: .*" + message
    ):
        agent.learn(ROLLOUT, callbacks=[Diary(), Adds()])


HOOKS = ("on_training_start", "on_rollout_end", "on_update", "on_training_end")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_callback_that_raises_is_named_in_one_line_and_the_others_are_closed(
    hook: str, tmp_path: Path
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("no\nsuch key")

    diary, broken = Diary(), type("Broken", (Callback,), {hook: fail})()
    steps = 0 if hook == "on_training_start" else 0 if hook == "on_rollout_end" else ROLLOUT
    with pytest.raises(CallbackError) as caught:
        small(tmp_path / "run").learn(ROLLOUT, callbacks=[diary, broken])
    line = f"callback Broken.{hook} at step {steps}: KeyError: 'no\\nsuch key'"
    assert str(caught.value) == line
    assert isinstance(caught.value, TrainingError)
    assert isinstance(caught.value.__cause__, KeyError)
    assert diary.calls[-1] == "close"


def test_a_callback_whose_close_raises_is_named_and_training_is_saved(tmp_path: Path) -> None:
    class Open(Diary):
        def close(self) -> None:
            raise OSError

    other = Diary()
    with small(tmp_path / "run") as agent:
        with pytest.raises(CallbackError, match=r"^callback Open\.close at step 32: OSError$"):
            agent.learn(2 * ROLLOUT, callbacks=[other, Open()])
        assert other.calls[-1] == "close"
    assert (tmp_path / "run" / "latest").read_text() == "32\n"


def test_a_function_that_raises_is_named_too(tmp_path: Path) -> None:
    def judge(step: int, metrics: dict[str, float]) -> None:
        raise ZeroDivisionError

    with pytest.raises(CallbackError, match=r"judge\.on_update at step 16: ZeroDivisionError"):
        small(tmp_path / "run").learn(ROLLOUT, judge)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (3, "callbacks is of type int, expected a Callback"),
        ([3], r"callbacks\[0\] is of type int, expected a Callback"),
        ("Diary", r"callbacks\[0\] is of type str"),
        (Diary, r"callbacks\[0\] is the class Diary: pass an object of it, Diary\(\.\.\.\)"),
        ([Diary(), Diary], r"callbacks\[1\] is the class Diary"),
    ],
)
def test_what_is_no_callback_is_refused(wrong: Any, message: str, tmp_path: Path) -> None:
    agent = small(tmp_path / "run")
    with pytest.raises(ConfigError, match=message):
        agent.learn(ROLLOUT, callbacks=wrong)
    assert agent.steps_done == 0 and not (tmp_path / "run").exists()


def test_training_stops_at_the_mean_of_the_latest_episodes(countdown: Any, tmp_path: Path) -> None:
    # Episodes of 2 steps pay 1 + 2, those of 4 pay 10; in 8 steps there are two of 2 and one of 4.
    def made() -> Any:
        return countdown((2, 2, 4), (False, False, False))

    def stopped(value: float, episodes: int) -> int:
        agent = RecurrentA2C(
            made,
            env={"num_envs": 1},
            memory=SMALL["memory"],
            agent={"rollout_steps": 32},
            logger={"kind": "none"},
        )
        agent.learn(32 * 4, callbacks=[StopAtReturn(value, episodes)])
        return agent.steps_done

    assert stopped(16 / 3, 6) == 32
    assert stopped(16 / 3, 100) == 128  # so many have not ended
    assert stopped(10.1, 1) == 128


@pytest.mark.parametrize("value", [float("nan"), "high", None, True])
def test_a_return_to_stop_at_is_a_finite_number(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"value=.*: expected a finite number"):
        StopAtReturn(value)


def test_checkpoints_are_written_at_their_own_rhythm(tmp_path: Path) -> None:
    run = tmp_path / "run"
    agent = small(run, checkpoint={"every_steps": 0, "keep": 10})
    agent.learn(2 * ROLLOUT, callbacks=PeriodicCheckpoint(24))
    agent.learn(4 * ROLLOUT, callbacks=PeriodicCheckpoint(24))
    # 24, 48, 72 and 96 lie in the updates that end at 32, 48, 80 and 96
    assert sorted(int(p.name) for p in (run / "checkpoints").iterdir()) == [32, 48, 80, 96]
    with pytest.raises(ConfigError, match="every_steps=0: expected an integer >= 1"):
        PeriodicCheckpoint(0)


def test_checkpoints_without_a_run_folder_are_refused() -> None:
    agent = RecurrentA2C("CartPole-v1", **{**SMALL, "logger": {"kind": "none"}})
    with pytest.raises(ConfigError, match="without a run folder no checkpoint is written"):
        agent.learn(ROLLOUT, callbacks=PeriodicCheckpoint(24))
