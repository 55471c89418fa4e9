from collections.abc import Callable

import pytest

from xlstm_rl.cli import main


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command line, check that it refuses in one line, and return that line."""

    def run(*args: str, status: int = 2) -> str:
        assert main(args) == status
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.count("\n") == 1, output.err
        assert "Traceback" not in output.err
        return output.err

    return run
