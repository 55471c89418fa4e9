"""Functions in processes of their own, joined by gloo over a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch

ROOT = Path(__file__).parents[2]
_CHILD = """
import os, sys, cloudpickle, torch, torch.distributed as dist
work, store, result = sys.argv[1:]
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
torch.set_num_threads(1)
dist.init_process_group(
    "gloo", store=dist.FileStore(store, size), rank=rank, world_size=size
)
with open(work, "rb") as file:
    answer = cloudpickle.load(file)()
torch.save(answer, result)
dist.destroy_process_group()
sys.stdout.flush(), sys.stderr.flush()
os._exit(0)  # gloo's threads, if any is alive at the end of the interpreter, may abort it
"""

InRanks = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def in_ranks(tmp_path_factory: pytest.TempPathFactory) -> InRanks:
    """Call a function without arguments in several ranks, and return what each returned.

    None for one that died, where that is expected.
    """

    def call(work: Callable[[], Any], size: int = 2, dies: bool = False) -> list[Any]:
        place = tmp_path_factory.mktemp("ranks")
        function: Any = getattr(work, "func", work)  # of a partial
        cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
        (place / "work").write_bytes(cloudpickle.dumps(work))
        results = [place / f"result-{rank}" for rank in range(size)]
        children = []
        for rank in range(size):
            torchrun = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
            torchrun |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}  # the file is taken
            words = ["-W", "error", "-c", _CHILD, place / "work", place / "store", results[rank]]
            env = {**os.environ, **torchrun, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            with (place / f"error-{rank}").open("w") as file:
                command = [sys.executable, *map(str, words)]
                children.append(subprocess.Popen(command, env=env, stderr=file))
        for child in children:
            child.wait(timeout=120)
        if not dies:
            errors = [(place / f"error-{rank}").read_text() for rank in range(size)]
            assert not any(child.returncode for child in children), "\n".join(errors)
        return [torch.load(one, weights_only=False) if one.exists() else None for one in results]

    return call
