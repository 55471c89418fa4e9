"""The command line, `xlstm-rl`: one file per command."""

from xlstm_rl.cli.main import main

__all__ = ["main"]
