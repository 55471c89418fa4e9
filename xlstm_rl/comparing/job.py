"""One run of a comparison: what it is, and the file that says what became of it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xlstm_rl.config import load_yaml
from xlstm_rl.files import replacing
from xlstm_rl.runs.curves import flatten
from xlstm_rl.runs.folder import CONFIG_FILE

DONE, FAILED = "done", "failed"

_ELSEWHERE = ("run_dir", "device", "threads", "logger.", "checkpoint.")
"""Options in which two runs may differ and be the same experiment with the same seed."""


@dataclass(frozen=True)
class Job:
    """A training, and the evaluation of the policy that it ends with."""

    case: str
    """What is learned: the name of the configuration."""

    memory: str
    """The contender, as it was written."""

    seed: int

    folder: Path
    """The run folder; beside it lie `<folder>.json`, the result, and `<folder>.log`."""

    config: Mapping[str, Any]
    """The whole configuration, as plain data."""

    evaluation: Mapping[str, Any]
    """Arguments of `evaluate`: episodes, seed, deterministic."""

    width: int = 0
    """Of the memory."""

    weights: int = 0
    """Of the whole policy."""

    @property
    def name(self) -> str:
        """What it is called on the terminal."""
        return f"{self.case}  {self.memory}  seed {self.seed}"

    @property
    def result_file(self) -> Path:
        """The file of its result."""
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def log_file(self) -> Path:
        """What its process prints."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def dumps(self) -> str:
        """Return it as JSON, for the process that runs it."""
        return json.dumps({**asdict(self), "folder": str(self.folder)})

    @classmethod
    def loads(cls, text: str) -> "Job":
        """Return what `dumps` wrote."""
        values = json.loads(text)
        return cls(**{**values, "folder": Path(values["folder"])})

    def result(self) -> "Result | None":
        """Return the result that stands on disk; None: there is none that can be read."""
        try:
            return Result(**json.loads(self.result_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def is_done(self) -> bool:
        """Return whether it is trained and evaluated as this job asks for.

        Whoever removes the run folder wants it trained anew, whatever its result says.
        """
        result = self.result()
        return (
            result is not None
            and (self.folder / CONFIG_FILE).is_file()
            and result.status == DONE
            and dict(result.evaluation) == dict(self.evaluation)
        )

    def difference(self) -> str | None:
        """Return in what a run that stands in its folder is another one; None: in nothing."""
        if not (self.folder / CONFIG_FILE).is_file():
            return None
        there, here = flatten(load_yaml(self.folder / CONFIG_FILE)), flatten(self.config)
        for key in sorted(there.keys() | here.keys()):
            if not key.startswith(_ELSEWHERE) and there.get(key) != here.get(key):
                return f"{key}={there.get(key)!r} there, {here.get(key)!r} now"
        return None


@dataclass(frozen=True)
class Result:
    """What became of a job."""

    status: str
    """`done` or `failed`."""

    error: str = ""
    """Why it failed, in one line."""

    evaluation: Mapping[str, Any] = field(default_factory=dict)
    """How it was evaluated."""

    returns: list[float] = field(default_factory=list)
    """Of the evaluated episodes."""

    success_rate: float | None = None

    steps: int = 0
    """Environment steps that were trained for."""

    def write(self, job: Job) -> None:
        """Write it beside the run folder.

        Raises:
            OSError: it cannot be written.
        """
        job.result_file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(job.result_file) as draft:
            draft.write_text(f"{json.dumps(asdict(self))}\n", encoding="utf-8")
