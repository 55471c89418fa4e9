"""Linear recurrences: states that decay by what the input says, without a normaliser."""
