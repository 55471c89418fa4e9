"""Every command and snippet of the pages: what is stale there fails here.

Python blocks run; so do the blocks of shell commands, with a budget of one rollout. Commands and
options inside the text are read by the real command line, and `train` builds its agent.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch

from xlstm_rl.agents import TrainConfig, make_agent
from xlstm_rl.cli import main
from xlstm_rl.cli.compare import CompareOptions
from xlstm_rl.cli.eval import EvalOptions
from xlstm_rl.cli.export import ExportOptions
from xlstm_rl.cli.inspect import InspectOptions
from xlstm_rl.cli.list import ListOptions
from xlstm_rl.cli.plot import PlotOptions
from xlstm_rl.cli.resume import ResumeOptions
from xlstm_rl.cli.train import TrainOptions
from xlstm_rl.config import ConfigError, find_config, load_yaml, parse_config

from .pages import BLOCKS, ROOT, SPANS, Snippet

PLACEHOLDERS = {"RUN": "runs/demo", "DIR": "there", "NAME": "memory_chain", "S": "0", "N": "2"}
"""What stands for the words in capitals of a command."""

SHORTER = {r"total_steps=[\d_]+": "total_steps=1"}
"""Budgets of the Python blocks: at least one rollout is done."""
if not torch.cuda.is_available():
    SHORTER |= {'"cuda"': '"cpu"', "cuda_graph=True": "cuda_graph=False"}


def shortened(text: str) -> str:
    """Python with budgets of one rollout."""
    for pattern, short in SHORTER.items():
        text = re.sub(pattern, short, text)
    return text


RUNS = ("runs/demo", "runs/a", "runs/b", "runs/c", "runs/chain")
"""Folders of runs that the pages take for granted."""

EXTRAS = {"minigrid": "minigrid", "envpool": "envpool", "popgym": "popgym", "bsuite": "bsuite"}
EXTRAS |= {"--agent.actors ray/": "ray", "--video": "moviepy"}
"""Words of a command that need a package, without which the command is read and not run."""

ELSEWHERE = "ray://"
"""What a command names that no test can reach: it is read and not run."""

NOT_OURS = {"ruff", "mypy", "lint-imports", "pytest", "venv", "tensorboard", "head"}
NOT_OURS |= {"npm", "mv", "tar", "http.server", "mkdocs"}
"""Programs whose options are not ours to check."""

OTHERS = {"eval": EvalOptions, "export": ExportOptions, "list": ListOptions, "plot": PlotOptions}
OTHERS |= {"resume": ResumeOptions, "inspect": InspectOptions, "compare": CompareOptions}
KINDS = [[], ["--agent.algo", "a2c"], ["--logger.kind", "wandb"]]
"""Options that other options need beside them: an option inside the text fits one of these."""


COMMAND = re.compile(r"(xlstm-rl|python|torchrun|pytest|pip|\w+=\S+ python|\.ci/[\w.]+)( |$)")


LONG = ("docs/distributed.md", "docs/exporting.md", "docs/images.md")
"""Pages whose blocks take longest to run; what they show has tests of its own."""


def _cases(snippets: list[Snippet], slow: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    found = [
        pytest.param(one, id=str(one), marks=[pytest.mark.slow] * str(one).startswith(slow))
        for one in snippets
    ]
    return pytest.mark.parametrize("snippet", found)


def commands(text: str) -> list[list[str]]:
    """The simple commands of a shell text, placeholders filled in."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|"):
                while words and re.match(r"[A-Z_]+=", words[0]):
                    del words[0]
                if words and words[0] != "export":
                    found.append(words)
                words = []
            else:
                words.append(PLACEHOLDERS.get(word.rstrip("."), word))
    return found


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documentation") / "demo"
    assert main(["train", "--total-steps", "1", "--run-dir", str(folder)]) == 0
    return folder


@pytest.fixture
def place(
    tmp_path: Path, made_run: Path, monkeypatch: pytest.MonkeyPatch, wandb_disabled: None
) -> Path:
    """An empty folder to be in, with the runs and the file that the pages take for granted."""
    monkeypatch.chdir(tmp_path)
    for run in RUNS:
        shutil.copytree(made_run, tmp_path / run)
    (tmp_path / "mine.yaml").write_text("env: {id: CartPole-v1}\n", encoding="utf-8")
    return tmp_path


def _clear(text: str, place: Path) -> None:
    """Leave out the runs that a snippet itself makes."""
    for run in RUNS:
        if f"--run-dir {run}" in text or f'save("{run}"' in text:
            shutil.rmtree(place / run)


@_cases([one for one in BLOCKS if one.language == "python"], LONG)
def test_a_block_of_python_runs(snippet: Snippet, place: Path) -> None:
    text = shortened(snippet.text)
    _clear(text, place)
    exec(compile(text, str(snippet), "exec"), {"__name__": "__main__"})


def test_the_first_block_of_python_runs_twice_in_one_folder(place: Path) -> None:
    text = next(one.text for one in BLOCKS if (one.page, one.language) == ("README.md", "python"))
    text = shortened(text)
    _clear(text, place)
    for _ in range(2):
        exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})


@_cases([one for one in BLOCKS if one.language in ("sh", "bash")], LONG)
def test_a_block_of_commands_runs(
    snippet: Snippet, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _clear(snippet.text, place)
    for words in commands(snippet.text):
        run_command(words, monkeypatch, for_real=True)


@_cases([one for one in SPANS if COMMAND.match(one.text)])
def test_a_command_inside_the_text_is_read(
    snippet: Snippet, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in commands(snippet.text):
        run_command(words, monkeypatch, for_real=False)


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch, for_real: bool) -> None:
    program, *args = words
    name = Path(program).name
    if name == "torchrun":  # what it starts is read, and not run
        name, args, for_real = "python", args[args.index("-m") :], False
    if name in ("python", "python3"):
        if args[:1] == ["-m"]:
            name, args = {"xlstm_rl": "xlstm-rl"}.get(args[1], args[1]), args[2:]
        elif args:
            program, *args = args
            name = Path(program).name
    if name == "xlstm-rl":
        _run_ours(args, for_real)
    elif name == "pip":
        _check_extras(args)
    elif name.endswith(".py"):
        _ask_script(program, args, monkeypatch)
    elif name.startswith("tests."):  # a module of the tests, without options
        assert (ROOT / name.replace(".", "/")).with_suffix(".py").is_file() and not args
    elif program == ".ci/run":
        assert os.access(ROOT / program, os.X_OK) and not args
    else:
        assert name in NOT_OURS, f"{name}: say in this file how it is checked"
        for word in args:
            assert not word.startswith("tests") or (ROOT / word).exists(), word


def _run_ours(args: list[str], for_real: bool) -> None:
    if "--help" in args:
        with pytest.raises(SystemExit) as done:
            main(args)
        assert done.value.code == 0
        return
    if not for_real and len(args) < 2:
        return  # a command that is named
    command, *options = args
    can_run = ELSEWHERE not in " ".join(args) and all(
        importlib.util.find_spec(package)
        for word, package in EXTRAS.items()
        if word in " ".join(args)
    )
    if for_real and can_run:
        short = ["--total-steps", "1"] if command in ("train", "compare") else []
        if command == "compare":
            short += ["--seeds", "1", "--episodes", "1", "--memories", "mlp"]
        if command == "resume":
            short = ["--total-steps", str(_one_rollout_more(Path(options[0])))]
        assert main([*args, *short]) == 0
    elif command == "train":
        config = _train_config(options)
        if can_run:
            make_agent(config).close()
    else:
        parse_config(OTHERS[command], options)


def _one_rollout_more(run: Path) -> int:
    config = load_yaml(run / "config.yaml")
    done = int((run / "latest").read_text(encoding="utf-8"))
    return done + int(config["env"]["num_envs"]) * int(config["agent"]["rollout_steps"])


def _train_config(words: list[str]) -> TrainConfig:
    if "--config" not in words:
        return parse_config(TrainOptions, words)
    at = words.index("--config")
    return parse_config(TrainOptions, words[:at] + words[at + 2 :], find_config(words[at + 1]))


def _check_extras(args: list[str]) -> None:
    known = importlib.metadata.metadata("xlstm_rl").get_all("Provides-Extra") or []
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(args)):
        assert set(extras.split(",")) <= set(known), extras


class _StoppedError(Exception):
    """A script has read its options."""


def _ask_script(program: str, args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a script and stop it behind the reading of its options."""
    path = ROOT / program
    if "ArgumentParser" not in path.read_text(encoding="utf-8"):
        assert not args
        return
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser) -> None:
        parse(self)
        raise _StoppedError

    before = set(sys.modules)
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", [program, *args])
        patch.syspath_prepend(str(path.parent))
        with pytest.raises(_StoppedError):
            runpy.run_path(str(path), run_name="__main__")
    for name in [n for n in set(sys.modules) - before if n.partition(".")[0] in ("gpu", "peers")]:
        del sys.modules[name]


@_cases([one for one in SPANS if re.match(r"--\w.*[^-]$", one.text)])
def test_an_option_inside_the_text_is_known(snippet: Snippet) -> None:
    (words,) = commands(snippet.text)
    flag = words[0].partition("=")[0]
    tried = [(TrainOptions, [*kind, *words]) for kind in KINDS]
    tried += [(EvalOptions, ["runs/demo", *words]), (PlotOptions, ["runs/a", *words])]
    tried += [(ExportOptions, ["runs/demo", "--out", "x.onnx", *words])]
    tried += [(InspectOptions, ["runs/demo", "--out", "there", *words])]
    tried += [(ResumeOptions, ["runs/demo", *words]), (CompareOptions, words)]
    refusals = []
    for options, given in tried:
        try:
            parse_config(options, given)
            return
        except ConfigError as error:
            refusals.append(str(error))
    named = len(words) == 1 and not all("no such" in one for one in refusals)
    scripts = [*ROOT.glob("benchmarks/*.py"), *ROOT.glob(".ci/*.py"), *ROOT.glob("xlstm_rl/cli/*")]
    theirs = any(f'"{flag}"' in one.read_text("utf-8") for one in scripts if one.suffix == ".py")
    assert named or theirs or flag in ("--config", "--help", "--confcutdir"), refusals


@_cases([one for one in BLOCKS if one.language == "yaml"])
def test_a_block_of_yaml_is_a_configuration(snippet: Snippet, tmp_path: Path) -> None:
    path = tmp_path / "block.yaml"
    path.write_text(snippet.text, encoding="utf-8")
    parse_config(TrainConfig, file=path)


def test_the_errors_shown_on_the_page_of_configuration_are_those_that_come(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine.yaml").write_text("agent: {epoch: 3}\n", encoding="utf-8")
    for words in (["--config", "mine.yaml"], ["--memory.kind", "xltsm"]):
        assert main(["train", *words]) == 2
        line = capsys.readouterr().err
        shown = [one.text for one in BLOCKS if one.page == "docs/configuration.md"]
        assert any(line in text for text in shown)
