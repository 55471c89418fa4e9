"""From observations to the features that a memory reads."""
