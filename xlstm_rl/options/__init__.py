"""What can be set: values and their types, sections of them, sections of several kinds.

It stands below everything else and imports nothing beside the standard library, so that kernels
and environments, which know neither each other nor the core, need no copy of it.
"""
