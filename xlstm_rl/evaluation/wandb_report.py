"""An evaluation as points, and videos, of the W&B run of its training."""

from pathlib import Path
from typing import Any

from xlstm_rl.config import config_from_dict, load_yaml
from xlstm_rl.evaluation.result import EvaluationResult
from xlstm_rl.runs.folder import CONFIG_FILE, run_of
from xlstm_rl.runs.loggers import LoggerConfig


def log_evaluation(checkpoint: Path, result: EvaluationResult, videos: Path | None) -> None:
    """Log an evaluation at the step of its checkpoint.

    The names begin with `evaluation/`, those of sampled actions with `evaluation_sampled/`.

    Args:
        checkpoint: the folder of the policy that was evaluated.
        result: what was found.
        videos: the folder of the episodes' videos; None: there are none.
    """
    from xlstm_rl.runs.loggers.wandb_logger import WandbSink

    run = run_of(checkpoint)
    config = load_yaml(run / CONFIG_FILE) if (run / CONFIG_FILE).is_file() else {}
    options: Any = config_from_dict(LoggerConfig, config.get("logger", {"kind": "wandb"}))
    if not hasattr(options, "checkpoints"):  # it was logged elsewhere
        options = LoggerConfig("wandb")
    step = int(checkpoint.name) if checkpoint.name.isdecimal() else 0
    head = "evaluation" if result.deterministic else "evaluation_sampled"
    sink = WandbSink(options, run, config, is_training=False)
    try:
        if videos is not None:
            files = {f"{head}/{file.stem}": file for file in sorted(videos.glob("*.mp4"))}
            sink.write_videos(step, files)
        sink.write(step, {f"{head}/{key}": value for key, value in metrics_of(result).items()})
    finally:
        sink.close()


def metrics_of(result: EvaluationResult) -> dict[str, float]:
    """Return an evaluation as numbers to log: the same names wherever one is logged."""
    found = {"return": result.mean, "length": result.mean_length}
    ends = result.interval()
    if ends is not None:
        found |= {"return_low": ends[0], "return_high": ends[1]}
    if result.success_rate is not None:
        found["success"] = result.success_rate
    return found
