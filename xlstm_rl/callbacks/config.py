"""Options of what a configuration asks for while an agent trains."""

from dataclasses import dataclass

from xlstm_rl.options.fields import Count, CountOrZero
from xlstm_rl.options.section import Section, refuse_unused


@dataclass(frozen=True)
class EvaluationConfig(Section):
    """Evaluation while training, in environments of its own; the best policy is kept in `best/`."""

    section = "evaluation"

    every_steps: CountOrZero = 0
    """Environment steps between two evaluations; 0: none."""

    episodes: Count = 20
    """Episodes of an evaluation."""

    deterministic: bool = True
    """Take the most probable actions, instead of samples as training does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every_steps == 0:
            owner = "evaluation.every_steps >= 1, but evaluation.every_steps is 0"
            refuse_unused(self, ("episodes", "deterministic"), owner)
