"""How processes of tests start."""

import multiprocessing
import sys
import warnings
from collections.abc import Iterator

import pytest


def usual_start_method() -> None:
    """Start processes as Python does by itself; TorchRL, once imported, wants fresh interpreters.

    These take seconds. From 3.12 on Python warns of a fork beside threads, such as those of other
    tests, so there it stays as TorchRL has it.
    """
    if sys.version_info < (3, 12):
        multiprocessing.set_start_method(None, force=True)


@pytest.fixture
def forked() -> Iterator[None]:
    """Processes that start at once, also where an import has asked for fresh interpreters."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    with warnings.catch_warnings():
        # newer Pythons warn of every fork beside threads, such as those of other tests
        warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
        yield
    multiprocessing.set_start_method(before, force=True)
