"""The error of everything a user may have written wrongly."""


class ConfigError(ValueError):
    """Bad usage or configuration: one line with what came, what was expected, what to do."""


def one_line(message: object) -> str:
    """A message with its line breaks and runs of blanks folded into single blanks."""
    return " ".join(str(message).split())
