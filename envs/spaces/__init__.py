"""Observation and action spaces: which are supported, their leaves, and their file form."""
