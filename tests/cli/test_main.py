import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xlstm_rl import RecurrentPPO
from xlstm_rl.cli import main
from xlstm_rl.cli.main import COMMANDS
from xlstm_rl.cli.train import FIRST_PAGE, TrainOptions
from xlstm_rl.config import parse_config
from xlstm_rl.config.settings import all_paths
from xlstm_rl.memory.config import MEMORIES
from xlstm_rl.policy.config import DISTRIBUTIONS
from xlstm_rl.runs.loggers.config import LOGGERS

TINY = (
    *("--env.num-envs", "2", "--agent.rollout-steps", "8", "--agent.minibatches", "1"),
    *("--memory.width", "8", "--memory.num-heads", "2", "--device", "cpu"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    agent = RecurrentPPO(
        "CartPole-v1",
        env={"num_envs": 4},
        agent={"rollout_steps": 64},
        memory={"width": 8, "num_heads": 2},
        run_dir=str(folder),
    )
    agent.learn(256)
    agent.close()
    return folder


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ([], "expected a command: train, eval"),
        (["trian"], "did you mean train?"),
        (["dance"], "there are train, eval"),
        (["list"], "WHAT is missing"),
        (["list", "config"], "did you mean configs?"),
        (["list", "envs", "more"], "'more'"),
        (["eval"], "RUN is missing"),
        (["eval", "run", "--episods", "3"], "did you mean --episodes?"),
        (["eval", "run", "--episodes", "many"], "an integer"),
        (["plot", "--out", "a.png"], "RUNS is missing"),
        (["plot", "run"], "--out is missing"),
    ],
)
def test_bad_usage_is_one_line(refused: Callable[..., str], args: list[str], part: str) -> None:
    assert part in refused(*args)


def test_help_waits_for_neither_torch_nor_gymnasium() -> None:
    code = (
        "import sys; from xlstm_rl.cli import main; status = main(['--help']);"
        "print(sorted({'torch', 'gymnasium', 'wandb'} & set(sys.modules))); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: xlstm-rl COMMAND" in done.stdout
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_does_not_wait_for_torch(command: str) -> None:
    code = f"""
import sys
from xlstm_rl.cli import main
from xlstm_rl.cli.main import COMMANDS
try:
    main(["{command}", "--help"])
finally:
    print(sorted({{"torch", "tensordict", "wandb", "matplotlib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"usage: xlstm-rl {command}" in done.stdout
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (
            "train",
            ["--env.num-envs INT", "--memory.kind {xlstm", "--agent.gamma FLOAT", "--config"],
        ),
        ("eval", ["RUN", "--episodes INT", "--stochastic", "(default: 20)", "--env.id"]),
        ("plot", ["RUN...", "--out STR"]),
        ("list", ["{configs,distributions,envs,loggers,memories,wrappers}"]),
    ],
)
def test_every_command_explains_its_options(
    capsys: pytest.CaptureFixture[str], command: str, parts: list[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        main([command, "--help"])
    assert exited.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: xlstm-rl {command}" in text
    assert all(part in text for part in parts), text


def test_help_shows_the_options_of_the_algorithm_that_stands_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = {}
    for words in ([], ["--agent.algo", "a2c"]):
        with pytest.raises(SystemExit):
            main(["train", *words, "--help"])
        seen[len(words)] = capsys.readouterr().out
    assert "--agent.clip FLOAT" in seen[0] and "--agent.rho-bar" not in seen[0]
    assert "--agent.clip FLOAT" not in seen[2] and "--agent.rho-bar FLOAT" in seen[2]


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("configs", ["cartpole_novel", "cartpole_novel_a2c", "memory_chain"]),
        ("envs", ["xlstm_rl/CartPoleNoVel-v1", "xlstm_rl/MemoryChain-v0"]),
        ("memories", list(MEMORIES.classes)),
        ("distributions", list(DISTRIBUTIONS.classes)),
        ("loggers", list(LOGGERS.classes)),
        ("wrappers", ["NoVelocity(velocities)", "Flicker(probability)", "Delay(steps)"]),
    ],
)
def test_list_names_each_with_a_description(
    capsys: pytest.CaptureFixture[str], what: str, names: list[str]
) -> None:
    assert main(["list", what]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(names) <= set(lines)


def _help(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as exited:
        main(["train", *words])
    assert exited.value.code == 0
    return capsys.readouterr().out


def test_the_first_page_of_train_is_short_and_names_the_way_to_the_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    first, whole = _help(capsys, "--help"), _help(capsys, "--help", "all")
    assert len(first.splitlines()) < 60 < len(whole.splitlines())
    assert "--help all" in first
    assert "--env.on-error" not in first and "--env.on-error" in whole
    for flag in (f"--{path.replace('_', '-')} " for path in FIRST_PAGE):
        assert flag in first and flag in whole
    assert _help(capsys, "-h") == first
    # every option is in the whole
    paths = [path for path in all_paths(TrainOptions, with_flags=True)]
    own = parse_config(TrainOptions)
    for path in paths:
        value = own
        with contextlib.suppress(AttributeError):  # an option of another kind
            for name in path.split("."):
                value = getattr(value, name)
            assert f"--{path.replace('_', '-')}" in whole, path


def test_one_section_and_what_stands_beside_help_are_shown_whole(
    capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    memory = _help(capsys, "--help", "memory")
    assert "--memory.num-heads" in memory and "--env.id" not in memory
    beside = _help(capsys, "--memory.kind", "gru", "--help")
    assert "--memory.num-layers" in beside or "--memory.width" in beside
    assert "--memory.pattern" not in beside and "--env.id" not in beside
    assert "did you mean memory?" in refused("train", "--help", "memroy")
    assert "there are all, env" in refused("train", "--help", "xyz")


@pytest.mark.parametrize("columns", [42, 60, 80, 100, 140])
@pytest.mark.parametrize("topic", [[], ["all"]])
def test_help_is_wrapped_once(
    columns: int,
    topic: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = _help(capsys, "--help", *topic)
    lines = [line.strip("│| ") for line in text.splitlines()]
    assert max(map(len, text.splitlines())) <= columns
    # A line ends where the next word would not fit; twice wrapped, some end much earlier.
    about = "On a CUDA device the memory tasks compute there too, unless"
    if topic and columns < 120:  # beyond, frames stand side by side
        assert about in " ".join(lines)
        inner = [line for line in lines if line in ("the", "torch's", "made", "makes the")]
        assert inner == []


@pytest.mark.parametrize("topic", [[], ["agent"], ["all"]])
def test_the_words_that_an_option_takes_are_its_own(
    topic: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = _help(capsys, "--help", *topic)
    assert "--agent.rollout-steps INT|{auto}" in text
    assert "--agent.algo {ppo,a2c} " in text


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help", "all"],
        ["train", "--total-steps", "64", *TINY],
        ["eval", "RUN", "--episodes", "2", "--json"],
        pytest.param(["eval", "RUN", "--episodes", "2", "--both"], marks=pytest.mark.slow),
        ["plot", "RUN", "--out", "figure.png"],
        ["list", "wrappers"],
        ["export", "--help"],
    ],
    ids=" ".join,
)
@pytest.mark.few(3)
def test_every_command_survives_a_reader_that_leaves(words: list[str], run: Path) -> None:
    """`| head -1`, at the latest moment: the pipe is closed before the command starts."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "xlstm_rl", *[str(run) if w == "RUN" else w for w in words]],
            stdout=writer,
            stderr=subprocess.PIPE,
            cwd=run.parent,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            text=True,
        )
    finally:
        os.close(writer)
    assert done.returncode == 141, done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_environments_of_the_working_folder_are_found_and_stand_in_for_no_package(
    tmp_path: Path,
) -> None:
    (tmp_path / "mymodule.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Mine-v0', entry_point='gymnasium.envs.classic_control:CartPoleEnv',"
        " max_episode_steps=9)\n"
    )
    (tmp_path / "yaml.py").write_text("raise RuntimeError('a file in the folder was imported')\n")
    # as the script that pip installs, whose first place to look is the folder of the script
    script = (
        "import sys; sys.path = [p for p in sys.path if p not in ('', sys.argv[1])];"
        "sys.path.insert(0, sys.argv[2]); from xlstm_rl.cli import main; sys.exit(main("
        "['train', '--env.id', 'mymodule:Mine-v0', '--total-steps', '64', '--run-dir', 'r',"
        "'--logger.kind', 'none']))"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), root],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "next: xlstm-rl eval r --trust-code\n" in done.stdout  # it names code
    assert (tmp_path / "r" / "latest").exists()
