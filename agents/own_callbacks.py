"""The callbacks that a training has without being given any."""

from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.callbacks.base import Callback
from xlstm_rl.callbacks.memory_watch import MemoryWatch


def own_callbacks(config: TrainConfig, watch: MemoryWatch, last_step: int | None) -> list[Callback]:
    """Return what a configuration asks for, and a bar.

    Args:
        config: of the run.
        watch: of the agent's memories, over all calls of `learn`.
        last_step: where the bar ends; None: no bar.
    """
    own: list[Callback] = [watch]
    if config.logger.kind != "none":
        from xlstm_rl.callbacks.episodes import EpisodeLog

        own.append(EpisodeLog(config.env.info_keywords))
    asked = config.evaluation
    if asked.every_steps:
        from xlstm_rl.callbacks.evaluation import PeriodicEvaluation

        own.append(
            PeriodicEvaluation(asked.every_steps, asked.episodes, deterministic=asked.deterministic)
        )
    if last_step is not None:
        from xlstm_rl.callbacks.progress import ProgressBar

        own.append(ProgressBar(last_step))
    return own
