"""Finds the command, runs it, and turns what goes wrong into one line and an exit status."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module

from xlstm_rl import __version__
from xlstm_rl.cli.pipes import PIPE_CLOSED, is_output_unread, replace_closed_streams, say
from xlstm_rl.config.errors import ConfigError, one_line
from xlstm_rl.errors import CheckpointError, ExportError
from xlstm_rl.options.arguments import did_you_mean
from xlstm_rl.runs.signals import stopped_once
from xlstm_rl.terminal import described, terminal_width, wrapped

COMMANDS = {
    "train": "train an agent; without options, PPO with an xLSTM on CartPole without velocities",
    "eval": "play whole episodes with the policy of a run and report its return",
    "resume": "train on where a run stood, to the bit as if it had not stopped",
    "compare": "train several memories with several seeds, and put them into one table",
    "inspect": "look inside a policy: a page of what it sees, does, keeps and forgets",
    "export": "write a policy as a file that acts without this library: onnx, pt2, c",
    "plot": "draw the learning curves of runs",
    "list": "what there is: configs, envs, wrappers, memories, distributions, loggers",
}
"""Each command's module in this package, and what it does."""

_OPTIONS = {
    "-h, --help": "show this, or after a command its options",
    "--version": "show the version",
    "--debug": "after a command: show the traceback of an error (as XLSTM_RL_DEBUG=1 does)",
}

_OK, _FAILED, _BAD_USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: success. 1: the run failed. 2: bad usage or configuration. 130: interrupted, 143:
    terminated, 141: nobody reads the output any more; in training, saved each time.
    Errors are one line on standard error; `--debug`, or XLSTM_RL_DEBUG=1, shows the traceback.
    """
    replace_closed_streams()
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args or os.environ.get("XLSTM_RL_DEBUG", "0") not in ("", "0")
    args = [word for word in args if word != "--debug"]
    name = args[0] if args and args[0] in COMMANDS else None
    try:
        try:
            # Else SDL, which draws some environments, would take SIGTERM and drop it.
            with _modules_of_the_working_folder(), stopped_once():
                return _run(name, args)
        finally:
            print(end="", flush=True)  # a closed pipe is noticed here, and not at exit
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        what = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}.get(number, "hung up")
        say(f"xlstm-rl: {what}", sys.stderr)
        return 128 + int(number)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and is_output_unread():
            return PIPE_CLOSED
        if debug:
            traceback.print_exc()
        command_name = f"xlstm-rl {name}" if name else "xlstm-rl"
        message = one_line(error)
        if isinstance(error, ConfigError | CheckpointError | ExportError):
            say(f"{command_name}: {message}", sys.stderr)
            return _BAD_USAGE
        what = f"{type(error).__name__}: {message}" if message else type(error).__name__
        hint = "" if debug else " (--debug shows where)"
        say(f"{command_name}: failed: {what}{hint}", sys.stderr)
        return _FAILED


@contextmanager
def _modules_of_the_working_folder() -> Iterator[None]:
    """Find `--env.id mymodule:Mine-v0` beside whoever runs the command.

    `python -m xlstm_rl` does by itself. The folder is looked through last, so that no file in it
    stands in for a package.
    """
    added: list[str] = []
    with suppress(OSError):  # the folder is gone
        added = [folder for folder in [os.getcwd()] if not {"", folder} & set(sys.path)]
    sys.path.extend(added)
    try:
        yield
    finally:
        for one in added:
            sys.path.remove(one)


def _run(name: str | None, args: Sequence[str]) -> int:
    if name is None:
        return _without_command(args)
    # Commands are imported one at a time, so that help does not wait for torch.
    command = import_module(f"xlstm_rl.cli.{name}")
    return int(command.run(args[1:]))


def _without_command(args: Sequence[str]) -> int:
    """Answer `--help` and `--version`, and refuse everything else."""
    if args and args[0] in ("-h", "--help"):
        print(_overview())
        return _OK
    if args and args[0] == "--version":
        print(__version__)
        return _OK
    if not args:
        raise ConfigError(f"expected a command: {', '.join(COMMANDS)}; --help says more")
    hint = did_you_mean(args[0], COMMANDS) or f"; there are {', '.join(COMMANDS)}"
    raise ConfigError(f"no such command {args[0]!r}{hint}")


def _overview() -> str:
    width = terminal_width()
    commands = _said(COMMANDS, width, 10)
    options = _said(_OPTIONS, width, 14)
    what = "Train and evaluate reinforcement-learning agents whose memory is an xLSTM."
    return f"""usage: xlstm-rl COMMAND [OPTIONS]

{wrapped(what, width, 0)}

commands:
{commands}

options:
{options}

examples:
  xlstm-rl train --memory.pattern ms --run-dir runs/demo
  xlstm-rl eval runs/demo --episodes 50
  xlstm-rl plot runs/demo --out curve.png"""


def _said(entries: Mapping[str, str], width: int | None, column: int) -> str:
    return "\n".join(
        described([(f"  {name}", what) for name, what in entries.items()], width, column)
    )
