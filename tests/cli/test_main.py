import subprocess
import sys
from collections.abc import Callable

import pytest

from xlstm_rl.cli import main
from xlstm_rl.cli.main import COMMANDS
from xlstm_rl.memory.config import MEMORIES
from xlstm_rl.policy.config import DISTRIBUTIONS
from xlstm_rl.runs.loggers.config import LOGGERS


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
