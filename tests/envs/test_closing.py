"""What was opened is closed when what follows it fails."""

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.envs import EnvConfig, MemoryChain, MemoryChainVectorEnv, make_env, make_vector_env

VECTOR, OTHER = spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (4,))
UNKNOWN = spaces.Text(3)


class Counted(gymnasium.Env[Any, Any]):
    """Knows which of its kind are open."""

    action_space = spaces.Discrete(2)
    open: "set[Counted]" = set()  # noqa: RUF012

    def __init__(self, space: Any = VECTOR, render_mode: str | None = None) -> None:
        self.observation_space, self.render_mode = space, render_mode
        self.open.add(self)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        raise ZeroDivisionError

    def render(self) -> Any:
        raise ZeroDivisionError

    def close(self) -> None:
        self.open.discard(self)


@pytest.fixture(autouse=True)
def nothing_is_open() -> Iterator[None]:
    Counted.open.clear()
    before = set(multiprocessing.active_children())
    yield
    assert not Counted.open
    assert set(multiprocessing.active_children()) <= before


def _in_turn(*found: Any) -> Callable[[], Any]:
    left = iter(found)

    def make() -> Any:
        one = next(left)
        if isinstance(one, Exception):
            raise one
        return Counted(one)

    return make


@pytest.mark.parametrize("on_error", ["stop", "restart"])
@pytest.mark.parametrize(
    ("found", "wrappers", "message"),
    [
        ([VECTOR, VECTOR, ZeroDivisionError("no floor")], {}, "no floor"),
        ([VECTOR, VECTOR, OTHER], {}, "environment 2 is not that of environment 0"),
        ([VECTOR], {"Delay": {"steps": -1}}, "steps=-1"),
        ([VECTOR], {"gymnasium.wrappers:GrayscaleObservation": {}}, "GrayscaleObservation"),
        ([VECTOR], {"builtins:str": {}}, "expected a gymnasium.Env"),
    ],
)
def test_environments_of_a_vector_that_cannot_be_made_are_closed(
    on_error: Any, found: list[Any], wrappers: dict[str, Any], message: str
) -> None:
    config = EnvConfig(num_envs=3, vectorization="sync", on_error=on_error, wrappers=wrappers)
    with pytest.raises((ValueError, ZeroDivisionError), match=message):
        make_vector_env(config, _in_turn(*found))


def test_a_single_one_that_cannot_be_seen_is_closed() -> None:
    with pytest.raises(ValueError, match="'rgb_array' is needed"):
        make_env(EnvConfig(), lambda: Counted(), render_mode="rgb_array")


def test_an_error_of_closing_does_not_hide_the_first() -> None:
    class Stubborn(Counted):
        def close(self) -> None:
            super().close()
            raise OSError("cannot be closed")

    with pytest.raises(ValueError, match="steps=-1"):
        make_env(EnvConfig(wrappers={"Delay": {"steps": -1}}), Stubborn)


@pytest.mark.filterwarnings("ignore:.*is missing AutoresetMode metadata:UserWarning")
def test_a_native_form_that_does_not_say_when_it_resets_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = []

    class Silent(MemoryChainVectorEnv):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.metadata = {}

        def close(self, **kwargs: Any) -> None:
            closed.append(self)

    spec = EnvSpec("Silent-v0", entry_point=MemoryChain, vector_entry_point=Silent)
    monkeypatch.setitem(gymnasium.registry, "Silent-v0", spec)
    with pytest.raises(ValueError, match="autoreset_mode"):
        make_vector_env(EnvConfig("Silent-v0", num_envs=2))
    assert len(closed) == 1


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("on_error", ["stop", "restart"])
def test_processes_end_when_their_environments_differ(on_error: Any) -> None:
    made = multiprocessing.get_context("fork").Value("i", 0)

    def make() -> Any:
        with made.get_lock():
            made.value += 1
            return Counted(OTHER if made.value == 3 else VECTOR)

    with pytest.raises(ValueError, match="space"):
        make_vector_env(EnvConfig(num_envs=3, vectorization="async", on_error=on_error), make)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"policy": {"image_encoder": "impala"}}, "image_encoder"),
        ({"memory": {"kind": "nowhere:Name"}}, "nowhere"),
        ({"policy": {"action_distribution": {"kind": "gaussian"}}}, "no part of the action space"),
    ],
)
def test_an_agent_that_cannot_be_made_closes_its_environments(
    vectorization: str, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentPPO(Counted, env={"num_envs": 4, "vectorization": vectorization}, **section)


def test_an_agent_that_cannot_be_made_leaves_a_ready_vector_open() -> None:
    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    ready = gymnasium.vector.SyncVectorEnv([Counted] * 4, autoreset_mode=mode)
    with pytest.raises(ValueError, match="image_encoder"):
        RecurrentPPO(ready, policy={"image_encoder": "impala"})
    assert len(Counted.open) == 4
    ready.close()


def test_a_command_whose_folder_is_taken_closes_its_environments(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xlstm_rl.cli import main

    monkeypatch.setitem(gymnasium.registry, "Counted-v0", EnvSpec("Counted-v0", Counted))
    (tmp_path / "precious.txt").write_text("keep me")
    words = ["--env.id", "Counted-v0", "--env.num-envs", "4", "--run-dir", str(tmp_path)]
    assert main(["train", *words]) == 2


def test_an_evaluation_that_cannot_be_recorded_closes_its_environment(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoRecorder:
        def __init__(self, *_: Any, **__: Any) -> None:
            raise gymnasium.error.DependencyNotInstalled("moviepy is missing")

    agent = RecurrentPPO(Counted, env={"num_envs": 4})
    agent.close()
    monkeypatch.setattr(gymnasium.wrappers, "RecordVideo", NoRecorder)
    with pytest.raises(ValueError, match="moviepy is missing"):
        evaluate(agent.policy, Counted, video_dir=tmp_path)


def test_a_new_environment_of_other_spaces_is_closed() -> None:
    env = make_vector_env(
        EnvConfig(num_envs=1, on_error="restart"), _in_turn(VECTOR, OTHER, UNKNOWN)
    )
    env.reset(seed=0)
    with (
        pytest.warns(RuntimeWarning, match="restarted, restart"),
        pytest.raises(RuntimeError, match="3 times in a row"),
    ):
        env.step(np.zeros(1, np.int64))
    env.close()
