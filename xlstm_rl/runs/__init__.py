"""The life of a run: its folder, checkpoints, loggers, progress and plots."""
