"""W&B sweeps, as `wandb sweep` takes them: YAML files only."""
