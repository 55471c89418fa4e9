"""Where the metrics of a run go: metrics.csv, TensorBoard, Weights & Biases, or elsewhere.

`metrics.csv` is written whatever else is, so that plots and comparisons need no account and no
other program. TensorBoard and W&B are called directly: TorchRL's loggers would add its import
of two seconds and log one scalar at a time.
"""

from xlstm_rl.runs.loggers.base import Logger, Sink, make_logger
from xlstm_rl.runs.loggers.config import LoggerConfig, register_logger

__all__ = ["Logger", "LoggerConfig", "Sink", "make_logger", "register_logger"]
