"""Fixtures that set W&B's mode for a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def _wandb_mode(mode: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B in a mode. It reads its variables once: the tests to come have it read them again."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", mode)
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def wandb_disabled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B without runs."""
    with _wandb_mode("disabled", monkeypatch):
        yield


@pytest.fixture
def wandb_offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B whose runs stay in their folders."""
    with _wandb_mode("offline", monkeypatch):
        yield
