"""Wrappers that hide, delay and disturb what is seen, and how they are found by name."""
