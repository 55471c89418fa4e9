"""Which extra of this library brings a package that is missing."""

from __future__ import annotations

EXTRAS = {
    "ale_py": "atari",
    "bsuite": "bsuite",
    "box2d": "box2d",
    "cv2": "atari",
    "dm_env": "bsuite",
    "envpool": "envpool",
    "minigrid": "minigrid",
    "mujoco": "mujoco",
    "opencv": "atari",
    "popgym": "popgym",
    "pygame": "video",
    "shimmy": "bsuite",
}
"""Extras by the word with which an error names the package, lower case."""


def is_extra(module: str) -> bool:
    """Whether an extra of this library brings `module`."""
    return module.partition(".")[0] in EXTRAS


def missing_package(name: str, error: Exception) -> str:
    """Return a message that says what `name` lacks, and the extra that brings it.

    Args:
        name: What cannot be made without the package, such as an environment's id.
        error: What importing the package, or Gymnasium in its place, said.
    """
    # Where Gymnasium found the package missing, the error of the import stands behind its own.
    said = f"{getattr(error, 'name', None) or error} {error.__cause__ or ''}".lower()
    extra = next((extra for word, extra in EXTRAS.items() if word in said), None)
    remedy = f'install it with `pip install "xlstm_rl[{extra}]"`' if extra else str(error)
    return f"{name} needs a package that is not installed: {remedy}"
