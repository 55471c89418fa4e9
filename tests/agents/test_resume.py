"""A run that was interrupted and goes on from its checkpoint is the run that was not."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.config import ConfigError, load_yaml
from xlstm_rl.runs.folder import checkpoint_steps

ROLLOUTS = 8
ROLLOUT = 16  # steps: 2 environments, 8 steps each
MEMORIES: dict[str, dict[str, Any]] = {
    "m": {"pattern": "m", "width": 8, "num_heads": 2},
    "s": {"pattern": "s", "width": 8, "num_heads": 2},
    "lstm": {"kind": "lstm", "width": 8},
}


class _StoppedError(Exception):
    """What a callback raises."""


def make(
    run: Path,
    algo: str = "ppo",
    memory: str = "m",
    env: Any = "xlstm_rl/CartPoleNoVel-v1",
    policy: dict[str, Any] | None = None,
    **section: Any,
) -> RecurrentAgent:
    """An agent with statistics, previous actions and rewards, segments and cut episodes."""
    agent = {"minibatches": 2, "segment_steps": 4, "epochs": 2} if algo == "ppo" else {}
    cls = RecurrentPPO if algo == "ppo" else RecurrentA2C
    return cls(
        env,
        seed=5,
        run_dir=str(run),
        total_steps=ROLLOUTS * ROLLOUT,
        env={"num_envs": 2, "max_episode_steps": 11, **section},
        memory=MEMORIES[memory],
        policy={"previous_action": True, "previous_reward": True, "first_step": True}
        | (policy or {}),
        agent={"rollout_steps": 8, **agent},
        logger={"kind": "csv"},
    )


def interrupt_at(agent: RecurrentAgent, rollout: int) -> None:
    """Train until a callback raises behind a rollout."""

    def on_update(step: int, metrics: dict[str, float]) -> None:
        if step == rollout * ROLLOUT:
            raise _StoppedError

    with agent, pytest.raises(_StoppedError):
        agent.learn(agent.steps_to_go(), on_update)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "time/sps"} for row in csv.DictReader(file)]


def state_of(agent: RecurrentAgent) -> dict[str, Any]:
    """All that training goes on with, but for streams that no seed begins and the call's length."""
    state = agent.trainer_state()
    del state["generators"]["global"]
    del state["collector"]["environments"]  # spaces have generators that nobody draws from
    return {**state, "config": None, "budget": None, "weights": agent.policy.state_dict()}


def assert_same(one: Any, other: Any, path: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for name in one:
            assert_same(one[name], other[name], f"{path}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other or (one != one and other != other), (path, one, other)


def assert_goes_on_to_the_bit(
    tmp_path: Path, points: list[int], *, trust_code: bool = False, **what: Any
) -> None:
    """Hold a run that is interrupted behind some rollouts, one after the other, to a whole one."""
    whole = make(tmp_path / "whole", **what)
    with whole:
        whole.learn()
        expected = state_of(whole)
    agent = make(tmp_path / "run", **what)
    given = [what["env"]] if callable(what.get("env")) else []
    for point in points:
        interrupt_at(agent, point)
        agent = type(agent).load(tmp_path / "run", *given, trust_code=trust_code)
        assert agent.steps_done == point * ROLLOUT
    with agent:
        agent.learn()
        assert_same(state_of(agent), expected)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert checkpoint_steps(tmp_path / "run")[-1] == ROLLOUTS * ROLLOUT


def points(count: int, seed: Any) -> list[int]:
    return sorted(random.Random(str(seed)).sample(range(1, ROLLOUTS), count))


@pytest.mark.parametrize(
    ("algo", "memory", "vectorization"),
    [
        ("ppo", "m", "native"),
        ("ppo", "s", "sync"),
        ("ppo", "lstm", "native"),
        ("a2c", "m", "sync"),
        ("a2c", "s", "native"),
        ("a2c", "lstm", "sync"),
    ],
)
def test_an_interrupted_run_goes_on_to_the_bit(
    algo: str, memory: str, vectorization: str, tmp_path: Path
) -> None:
    what = {"algo": algo, "memory": memory, "vectorization": vectorization}
    assert_goes_on_to_the_bit(tmp_path, points(3, what), **what)


@pytest.mark.slow
@pytest.mark.parametrize("point", range(10))
@pytest.mark.parametrize("vectorization", ["sync", "native"])
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_a_run_interrupted_at_any_points_goes_on_to_the_bit(
    algo: str, memory: str, vectorization: str, point: int, tmp_path: Path
) -> None:
    what = {"algo": algo, "memory": memory, "vectorization": vectorization}
    assert_goes_on_to_the_bit(tmp_path, points(1 + point % 3, (what, point)), **what)


MODES = ["same_step", "next_step", "disabled"]
FORMS: dict[str, dict[str, Any]] = {
    "tensors": {"env": "xlstm_rl/TMaze-v0", "kwargs": {"length": 3, "tensors": True}},
    "wrappers": {"wrappers": {"Delay": {"steps": 2}, "Flicker": {"probability": 0.3}}},
    "restart": {"vectorization": "sync", "on_error": "restart"},
    "processes": {"vectorization": "async"},
    "processes that restart": {"vectorization": "async", "on_error": "restart"},
}
SOME = [("tensors", 2), ("wrappers", 1), ("restart", 0), ("processes", 1)]
SOME += [("processes that restart", 1)]


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("form", "mode"),
    [
        pytest.param(form, mode, marks=() if (form, i) in SOME else pytest.mark.slow)
        for form in FORMS
        for i, mode in enumerate(MODES)
    ],
)
def test_every_form_and_autoreset_mode_goes_on_to_the_bit(
    form: str, mode: str, tmp_path: Path
) -> None:
    assert_goes_on_to_the_bit(tmp_path, points(2, mode), autoreset=mode, **FORMS[form])


def test_a_separate_critic_that_shares_nothing_and_a_shared_one_go_on(tmp_path: Path) -> None:
    for critic in ("shared", "separate"):
        assert_goes_on_to_the_bit(tmp_path / critic, [3, 4], policy={"critic": critic})


@pytest.mark.parametrize("mask_in", ["info", "observation"])
def test_action_masks_go_on_to_the_bit(mask_in: str, any_spaces: type[Any], tmp_path: Path) -> None:
    spaces = gymnasium.spaces
    action = spaces.MultiDiscrete([3, 2])
    mask = spaces.Tuple([spaces.MultiBinary(3), spaces.MultiBinary(2)])
    parts: dict[str, Any] = {"x": spaces.Box(-1, 1, (2,)), "y": spaces.Discrete(3)}
    if mask_in == "observation":
        parts["action_mask"] = mask

    def env() -> Any:
        return any_spaces(spaces.Dict(parts), action, mask_in)

    assert_goes_on_to_the_bit(tmp_path, [2, 7], env=env, policy={"action_mask": mask_in})


class Drawing(gymnasium.Env[Any, Any]):
    """Draws from every global stream, and keeps objects that grow with time."""

    observation_space = gymnasium.spaces.Box(-9, 9, (3,))
    action_space = gymnasium.spaces.Discrete(2)

    class Thing:
        """What is there in some steps only."""

        def __init__(self, size: float) -> None:
            self.size = size

    def __init__(self) -> None:
        self.things: list[Any] = []
        self.t = 0

    def _see(self) -> Any:
        drawn = [random.gauss(0, 1), np.random.normal(), torch.randn(()).item()]
        self.things.append(self.Thing(drawn[0]))
        self.things = self.things[-3:]
        return np.clip(drawn, -9, 9).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        reward = sum(thing.size for thing in self.things)
        return self._see(), float(reward), self.t == 5, False, {}


def test_an_environment_that_draws_from_the_global_streams_goes_on(tmp_path: Path) -> None:
    def learned(run: Path, stop: int | None) -> dict[str, Any]:
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        agent = make(run, env=Drawing)
        if stop is not None:
            interrupt_at(agent, stop)
            random.seed(4), np.random.seed(4), torch.manual_seed(4)
            agent = RecurrentPPO.load(run, Drawing)
        with agent:
            agent.learn(agent.steps_to_go())
        return state_of(agent)

    assert_same(learned(tmp_path / "run", 4), learned(tmp_path / "whole", None))


class Handed(gymnasium.Env[Any, Any]):
    """Keeps its state where attributes do not show it, and hands it over when it is asked."""

    observation_space = gymnasium.spaces.Box(-9, 9, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.hidden = iter(range(10**6))  # which nothing here knows how to copy
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.hidden = iter(range(state["count"], 10**6))
        self.count = state["count"]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count = next(self.hidden) + 1
        seen = np.array([self.count % 7], np.float32)
        return seen, float(self.count % 3), self.count % 5 == 0, False, {}


def test_an_environment_with_a_form_of_its_own_goes_on_to_the_bit(tmp_path: Path) -> None:
    assert_goes_on_to_the_bit(tmp_path, [3], env=Handed)


class Bare(Handed):
    """The same, with nothing that it hands over."""

    state_dict = None  # type: ignore[assignment]


def test_other_environments_begin_new_episodes_and_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = make(tmp_path / "run", env=lambda: _Unpicklable())
    interrupt_at(agent, 3)
    capsys.readouterr()
    with RecurrentPPO.load(tmp_path / "run", lambda: _Unpicklable()) as loaded:
        loaded.learn()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "new episodes begin: the environments cannot hand over" in said
    assert loaded.steps_done == ROLLOUTS * ROLLOUT
    assert [row["step"] for row in rows(tmp_path / "run")][-1] == str(ROLLOUTS * ROLLOUT)


class _Unpicklable(Bare):
    def __init__(self) -> None:
        super().__init__()
        self.window = memoryview(b"a handle to something outside")


def test_what_was_pickled_is_read_with_trust_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_goes_on_to_the_bit(tmp_path / "trusted", [3], env=Bare, trust_code=True)
    agent = make(tmp_path / "run", env=Bare)
    interrupt_at(agent, 3)
    capsys.readouterr()
    with RecurrentPPO.load(tmp_path / "run", Bare) as loaded:
        loaded.learn()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "trust_code=True (--trust-code) reads it" in said


def test_rows_after_the_checkpoint_are_dropped_and_not_doubled(tmp_path: Path) -> None:
    agent = make(tmp_path / "run")
    with agent:
        agent.learn(3 * ROLLOUT)
        table = tmp_path / "run" / "metrics.csv"
        # a killed run: rows that no checkpoint covers, and a part of one
        lines = table.read_text().splitlines(keepends=True)
        last = lines[-1].split(",", 1)[1]
    table.write_text("".join([*lines, f"64,{last}", f"80,{last}", "96,1.5"]))
    with RecurrentPPO.load(tmp_path / "run") as loaded:
        loaded.learn(2 * ROLLOUT)
    assert [row["step"] for row in rows(tmp_path / "run")] == ["16", "32", "48", "64", "80"]


def test_the_configuration_says_what_was_trained(tmp_path: Path) -> None:
    def recorded(run: Path) -> tuple[int, int | None, str]:
        found = load_yaml(run / "config.yaml")
        return found["total_steps"], found["horizon"], found["env"]["id"]

    agent = RecurrentPPO(
        Drawing,
        run_dir=str(tmp_path / "run"),
        env={"num_envs": 2},
        memory=MEMORIES["m"],
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
    )
    with agent:
        agent.learn(2 * ROLLOUT)
        name = f"custom({__name__}.Drawing)"
        assert recorded(tmp_path / "run") == (32, 100_000, name)
        agent.learn(3 * ROLLOUT)
        assert recorded(tmp_path / "run") == (80, 100_000, name)
    with pytest.raises(
        ConfigError, match=r"trained on custom\(.*Drawing\).*load\(run, environment"
    ):
        RecurrentPPO.load(tmp_path / "run")


def test_other_options_take_effect_and_the_ones_before_are_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    interrupt_at(make(run), 4)
    options: dict[str, Any] = {"agent": {"learning_rate": 0.5, "learning_rate_end": 1.0}}
    with RecurrentPPO.load(run, **options) as agent:
        assert agent.optimizer.state_dict()["state"]
        agent.learn()
    assert {row["schedule/learning_rate"] for row in rows(run)[4:]} == {"0.5"}
    assert load_yaml(run / "config.yaml")["agent"]["learning_rate"] == 0.5
    assert load_yaml(run / "config.before-64.yaml")["agent"]["learning_rate"] == 1e-3
    with RecurrentPPO.load(run) as again:
        assert again.config.agent.learning_rate == 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory": {"width": 16}}, r"memory\.width=16: .* it has 8"),
        ({"memory": {"kind": "gru"}}, "memory"),
        ({"policy": {"previous_action": False}}, r"policy\.previous_action=False"),
        ({"normalization": {"reward": False}}, r"normalization\.reward=False"),
        ({"seed": 9}, r"seed=9: the random streams of a run go on from its own seed, 5"),
        ({"agent": {"learning_rat": 1.0}}, "did you mean"),
    ],
)
def test_what_a_trained_policy_is_made_of_cannot_change(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    interrupt_at(make(tmp_path / "run"), 2)
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=said) as refused:
        RecurrentPPO.load(tmp_path / "run", **options)
    assert "\n" not in str(refused.value)
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


def test_other_spaces_and_another_algorithm_are_refused(tmp_path: Path) -> None:
    interrupt_at(make(tmp_path / "run"), 2)
    with pytest.raises(ConfigError, match="observation_space is not the one of the run"):
        RecurrentPPO.load(tmp_path / "run", "CartPole-v1")
    with pytest.raises(ConfigError, match="runs a2c"):
        RecurrentA2C.load(tmp_path / "run")


def test_another_number_of_environments_begins_new_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_at(make(tmp_path / "run"), 2)
    capsys.readouterr()
    with RecurrentPPO.load(tmp_path / "run", env={"num_envs": 4}) as agent:
        agent.learn(64)
    said = capsys.readouterr().err
    assert "new episodes begin" in said and said.count("\n") == 1
    assert agent.steps_done == 2 * ROLLOUT + 64


def test_a_finished_run_says_so_and_trains_on_when_asked(tmp_path: Path) -> None:
    with make(tmp_path / "run") as agent:
        agent.learn()
    with RecurrentPPO.load(tmp_path / "run") as loaded:
        with pytest.raises(ConfigError, match=r"finished: 128 steps of 128 are done"):
            loaded.learn()
        assert loaded.learn(ROLLOUT).steps_done == 144
    assert load_yaml(tmp_path / "run" / "config.yaml")["total_steps"] == 144


def test_a_copy_goes_on_in_a_folder_of_its_own(tmp_path: Path) -> None:
    with make(tmp_path / "run") as agent:
        agent.learn(4 * ROLLOUT)
        agent.save(tmp_path / "run")
        agent.learn(2 * ROLLOUT)
    early = tmp_path / "run" / "checkpoints" / "64"
    with pytest.raises(ConfigError, match="newer checkpoint, 96"):
        RecurrentPPO.load(early)
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    with RecurrentPPO.load(early, run_dir=str(tmp_path / "copy")) as loaded:
        loaded.learn(2 * ROLLOUT)
        assert_same(state_of(loaded)["weights"], state_of(agent)["weights"])
    assert rows(tmp_path / "copy") == rows(tmp_path / "run")[4:]
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before


def test_loading_leaves_the_global_streams_alone(tmp_path: Path) -> None:
    interrupt_at(make(tmp_path / "run"), 2)
    random.seed(8), np.random.seed(8), torch.manual_seed(8)
    expected = random.random(), np.random.random(), torch.rand(()).item()
    random.seed(8), np.random.seed(8), torch.manual_seed(8)
    RecurrentPPO.load(tmp_path / "run").close()
    assert (random.random(), np.random.random(), torch.rand(()).item()) == expected


def test_the_trainers_state_holds_nothing_but_tensors_and_plain_values(tmp_path: Path) -> None:
    interrupt_at(make(tmp_path / "run"), 2)
    path = tmp_path / "run" / "checkpoints" / "32" / "trainer.pt"
    state = torch.load(path, weights_only=True)
    json.loads(state["collector"]["environments"]["structure"])
    assert state["collector"]["environments"]["arrays"].dtype == torch.uint8
