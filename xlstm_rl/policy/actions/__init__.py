"""Action distributions and action masks."""
