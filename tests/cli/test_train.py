import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlstm_rl import load_policy
from xlstm_rl.agents import PPOConfig, TrainConfig
from xlstm_rl.cli import main
from xlstm_rl.cli import train as train_command
from xlstm_rl.config import load_yaml
from xlstm_rl.errors import NonFiniteLossError
from xlstm_rl.kernels.native import choose

TINY = (
    *("--total-steps", "64", "--env.num-envs", "4", "--agent.rollout-steps", "8"),
    *("--memory.width", "8", "--memory.num-heads", "2", "--device", "cpu"),
)


class FakeAgent:
    """An agent whose `learn` does what a test says."""

    def __init__(self, run_dir: Path, learn: Callable[..., None]) -> None:
        self.run_dir, self._learn = run_dir, learn
        self.steps_done = 0
        self.config = TrainConfig(agent=PPOConfig(rollout_steps=64))
        self.closed = False

    def open_run(self) -> Path:
        return self.run_dir

    def learn(
        self, on_update: Callable[[int, dict[str, float]], None], profile: object = None
    ) -> None:
        self._learn(on_update)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    def install(learn: Callable[..., None], run_dir: Path = Path("run")) -> list[Any]:
        made: list[Any] = []

        def make_agent(config: Any) -> FakeAgent:
            agent = FakeAgent(run_dir, learn)
            made.extend([config, agent])
            return agent

        monkeypatch.setattr(train_command, "make_agent", make_agent)
        return made

    return install


def test_a_run_leaves_a_folder_that_loads_and_says_how_to_evaluate_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run 1"
    assert main(["train", *TINY, "--run-dir", str(run), "--memory.pattern", "ms"]) == 0
    output = capsys.readouterr()
    assert f"xlstm-rl eval '{run}'" in output.out
    assert "step 64" in output.err
    config = load_yaml(run / "config.yaml")
    assert config["memory"]["pattern"] == "ms"
    assert "config" not in config
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    assert load_policy(run).env_config.id == config["env"]["id"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([], "memory: xlstm on the native backend (C for "),
        (
            ["--memory.backend", "torch"],
            "memory: xlstm on the torch backend (PyTorch's operations); not native: "
            "memory.backend=torch\n",
        ),
        (["--memory.kind", "gru"], "memory: gru on PyTorch's operations\n"),
    ],
    ids=["auto", "torch", "gru"],
)
def test_training_says_on_which_backend_the_memory_runs(
    args: list[str],
    line: str,
    fake: Callable[..., list[Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake(lambda on_update: on_update(128, {}))
    assert main(["train", "--device", "cpu", *args]) == 0
    assert capsys.readouterr().err.startswith(line)


def test_training_says_why_the_memory_is_not_native(
    fake: Callable[..., list[Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
) -> None:
    monkeypatch.setattr(choose, "LOADED", False)
    monkeypatch.setattr(choose, "why_not_native", lambda: "it was not built")
    fake(lambda on_update: on_update(128, {}))
    assert main(["train", "--device", "cpu"]) == 0
    assert "on the torch backend (PyTorch's operations); not native: it was not built\n" in (
        capsys.readouterr().err
    )
    assert "memory.backend=native cannot run here: it was not built" in refused(
        "train", "--device", "cpu", "--memory.backend", "native"
    )


def test_the_saved_configuration_starts_the_same_run_again(
    tmp_path: Path, fake: Callable[..., list[Any]]
) -> None:
    made = fake(lambda on_update: None)
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 4\nenv: {num_envs: 4}\n")
    assert main(["train", "--config", str(path), "--seed", "5"]) == 0
    assert (made[0].seed, made[0].env.num_envs) == (5, 4)
    assert main(["train", f"--config={path}"]) == 0
    assert made[2].seed == 4
    assert made[1].closed


def test_a_configuration_in_the_users_home_is_found(
    tmp_path: Path, fake: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("seed: 4\n")
    made = fake(lambda on_update: None)
    assert main(["train", "--config=~/mine.yaml"]) == 0
    assert made[0].seed == 4


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["--config", "carpole_novel"], "did you mean cartpole_novel?"),
        (["--config", "missing.yaml"], "missing.yaml: no such file"),
        (["--config"], "--config: expected a value"),
        (["--confg", "cartpole_novel"], "did you mean --config?"),
        (["--memory.kind", "xltsm"], "did you mean xlstm?"),
        (["--memory.patern", "ms"], "did you mean --memory.pattern?"),
        (["--memory.pattern", "mx"], "memory.pattern='mx'"),
        (["--agent.gamma", "2"], "(from --agent.gamma)"),
        (["--agent.minibatches", "3"], "agent.minibatches=3 does not divide"),
        (["--env.id", "CartPol-v1"], "CartPole-v1"),
        (["--env.kwargs", "[1]"], "--env.kwargs: expected a mapping"),
        (["--device", "warp"], "device='warp'"),
    ],
)
def test_bad_configuration_is_one_line_and_leaves_nothing_behind(
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert part in refused("train", "--total-steps", "1", *args)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("env: {num_envs: many}", ":env.num_envs: expected an integer, got 'many'"),
        ("agent: {epochs: [4]}", ":agent.epochs: expected an integer, got [4]"),
        ("agent: {epoch: 4}", "did you mean agent.epochs?"),
        ("memory: {kind: xltsm}", "did you mean xlstm?"),
        ("memory: {width: 0}", ":memory.width"),
    ],
)
def test_bad_values_in_a_file_name_the_file_and_the_key(
    refused: Callable[..., str], tmp_path: Path, text: str, part: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    message = refused("train", "--config", str(path))
    assert "bad.yaml" in message
    assert part in message


def test_an_existing_run_folder_is_refused_and_left_alone(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "metrics.csv").write_text("precious")
    message = refused("train", *TINY, "--run-dir", str(tmp_path))
    assert "not empty" in message
    assert os.listdir(tmp_path) == ["metrics.csv"]
    assert (tmp_path / "metrics.csv").read_text() == "precious"


def test_a_failed_run_is_one_line_and_status_1(
    refused: Callable[..., str], fake: Callable[..., list[Any]]
) -> None:
    def learn(on_update: Any) -> None:
        raise NonFiniteLossError("the loss is nan\nat step 128")

    made = fake(learn)
    message = refused("train", status=1)
    assert "NonFiniteLossError: the loss is nan at step 128" in message
    assert made[1].closed


@pytest.mark.parametrize("by_variable", [True, False])
def test_debug_shows_the_traceback(
    fake: Callable[..., list[Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    by_variable: bool,
) -> None:
    def learn(on_update: Any) -> None:
        raise ValueError("a bug")

    fake(learn)
    if by_variable:
        monkeypatch.setenv("XLSTM_RL_DEBUG", "1")
    assert main(["train", *([] if by_variable else ["--debug"])]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupted_run_says_where_it_was_saved(
    tmp_path: Path, fake: Callable[..., list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    def learn(on_update: Callable[[int, dict[str, float]], None]) -> None:
        on_update(128, {"episode/return": 1.0})
        raise KeyboardInterrupt

    made = fake(learn, tmp_path / "run")
    assert main(["train"]) == 130
    assert made[1].closed
    assert f"interrupted; saved in {tmp_path / 'run'}" in capsys.readouterr().out


def test_a_run_without_a_logger_still_keeps_its_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *TINY, "--logger.kind", "none"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert load_policy(run).memory_config.width == 8
    assert not (run / "metrics.csv").exists()


def test_profile_prints_where_the_time_went_and_logs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *TINY, "--run-dir", str(run), "--profile"]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert {"environment", "acting", "forward", "backward", "optimizer", "other"} < set(rows)
    assert float(rows["backward"][-2]) >= 0  # seconds of the floor
    header, first, *_ = (run / "metrics.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert float(row["profile/acting"]) > 0 and float(row["profile/backward"]) > 0
    assert "profile" not in load_yaml(run / "config.yaml")
