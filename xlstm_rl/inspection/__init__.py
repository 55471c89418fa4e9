"""Looks inside a policy's memory: what it sees, says, keeps and forgets, step by step."""
