"""What an inspection has found of a policy."""

from dataclasses import dataclass, field

from xlstm_rl.inspection.erasing import Erasing
from xlstm_rl.inspection.recording import Recording
from xlstm_rl.inspection.rows import Row, rows_of
from xlstm_rl.inspection.saliency import Saliency
from xlstm_rl.inspection.trace import Columns


@dataclass(frozen=True)
class InspectedEpisode:
    """One episode and what is known of it."""

    recording: Recording
    """What happened."""

    columns: Columns
    """Its numbers, as `trace` returns them."""

    saliency: Saliency | None
    """Of its actions; None: it was not asked for."""

    @property
    def rows(self) -> list[Row]:
        """What is drawn of it."""
        return rows_of(self.columns)

    @property
    def title(self) -> str:
        """Its number, return and length in words."""
        one = self.recording
        end = "" if one.terminated else ", cut"
        return (
            f"episode {one.number}: return {sum(one.rewards):.4g}, {one.length} steps{end}"
        ).replace("return -0,", "return 0,")


@dataclass(frozen=True)
class Inspected:
    """A policy and its episodes."""

    name: str
    """That of its run."""

    about: str
    """Environment and memory in a line."""

    episodes: list[InspectedEpisode]
    """In order."""

    notes: list[str] = field(default_factory=list)
    """What is left out, and why."""

    erasing: Erasing | None = None
    """What its return loses; None: it was not asked for."""
