"""Rollouts: a policy steps a vector environment, and what it saw and did is written down."""
